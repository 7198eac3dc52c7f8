"""Models over HTTP: OpenAI's embeddings, text-embeddings-inference's routes, and a page to look at them.

`options` says what can be set, `app` makes the ASGI application and `server` runs it. A request is read and checked
by `requests`, answered by `openai_routes` or `tei_routes`, each with its own form of `problems`, tokenized by
`served_model` and computed by its `scheduler`. `metrics` counts, `openapi` describes, `page` shows.

Only `options` can be imported without the packages of the extra `gte_np[serve]`.
"""
