"""Embedded worlds: small grammars of requests and answers whose true rewards are known exactly."""
