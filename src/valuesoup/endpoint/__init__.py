"""OpenAI-compatible servers: one model asked by chat, or many that go on with texts; no answer is asked for twice."""

from valuesoup.endpoint.asking import Reply, Server
from valuesoup.endpoint.chat import Conversation, Endpoint, ask, read_replies, request_key
from valuesoup.endpoint.completion import Completion, Continuation, complete, read_continuations, served_models
from valuesoup.endpoint.generation import BASE_NAME, GenerationServer

__all__ = [
    "BASE_NAME",
    "Completion",
    "Continuation",
    "Conversation",
    "Endpoint",
    "GenerationServer",
    "Reply",
    "Server",
    "ask",
    "complete",
    "read_continuations",
    "read_replies",
    "request_key",
    "served_models",
]
