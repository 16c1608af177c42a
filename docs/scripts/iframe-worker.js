// From the disk a browser starts no worker, which the search is: there a hidden frame takes its place.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.inside = frame.contentWindow
      this.frame = frame
      this.onmessage = null
      const page = frame.contentDocument
      page.open()
      page.write("<!doctype html><script>" +
        "var waiting = 0, held = [], told = [];" +
        "var ready = function () { if (!waiting) while (held.length) onmessage && onmessage(held.shift()) };" +
        "postMessage = function (data) { parent.postMessage(data, '*') };" +
        "importScripts = function () { return Promise.all([].map.call(arguments, function (url) {" +
        "  return new Promise(function (done, fail) { var one = document.createElement('script');" +
        "    one.src = url; one.onload = done; one.onerror = fail; document.head.appendChild(one) }) })) };" +
        "<\/script><script src=\"" + url + "\"><\/script>")
      page.close()
      this.loaded = new Promise(done => frame.addEventListener("load", done, { once: true }))
      window.addEventListener("message", event => {
        if (event.source !== this.inside) return
        const copy = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(copy)
        if (this.onmessage) this.onmessage(copy)
      })
    }
    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data, source: window })))
    }
    terminate() { this.frame.remove() }
  }
}
