"""text-embeddings-inference's interface to one model: /embed, /embed_all, /similarity, /tokenize, /decode, /info."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gte_np import __version__
from gte_np.encoder_interface import FloatArray
from gte_np.errors import InputError
from gte_np.serve.interface import Interface, as_ids, json_response
from gte_np.serve.metrics import Metrics
from gte_np.serve.options import Limits
from gte_np.serve.problems import EMPTY, TOKENIZATION, UNHEALTHY, RequestError
from gte_np.serve.requests import Door, Fields
from gte_np.serve.served_model import Reading, ServedModel, Task
from gte_np.similarity import cos_sim

_DIRECTIONS = ("right", "left", "Right", "Left")  # written in both ways by its versions


class TeiInterface(Interface):
    """The routes of one model."""

    def __init__(self, served: ServedModel, limits: Limits, door: Door, metrics: Metrics) -> None:
        super().__init__(limits, door, metrics)
        self.served = served

    def routes(self) -> list[BaseRoute]:
        """The routes, of which those that tell whether the server is there need no key."""
        handlers = {
            "/embed": self.embed,
            "/embed_all": self._embed_all,
            "/similarity": self._similarity,
            "/tokenize": self._tokenize,
            "/decode": self._decode,
        }
        posts: list[BaseRoute] = [
            Route(path, self.guarded(handler), methods=["POST"]) for path, handler in handlers.items()
        ]
        return [
            *posts,
            Route("/info", self.guarded(self._info), methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ping", self.health, methods=["GET"]),
        ]

    def refusal(self, problem: RequestError) -> Response:
        """A problem as text-embeddings-inference tells it."""
        error = {"error": problem.message, "error_type": problem.kind.error_type}
        return json_response(error, problem.kind.status, problem.headers)

    async def health(self, request: Request) -> Response:
        """Nothing, with status 200, or 503 if the model does not compute any more."""
        if await self.served.is_healthy():
            return Response()
        return self.refusal(RequestError(UNHEALTHY, "unhealthy"))

    async def embed(self, request: Request) -> Response:
        """Vectors, (B, D)."""
        fields = await self.door.fields(request)
        inputs = self.inputs(fields, "inputs")
        dimension = fields.get("dimensions", int, "an integer")
        self.served.check_dimension(dimension, "dimensions")
        task = Task(normalize=fields.flag("normalize", True), dimension=dimension)
        computed, headers = await self.compute(request, self.served, inputs, self._reading(fields), task)
        return json_response(computed.matrix, headers=headers)

    async def _embed_all(self, request: Request) -> Response:
        fields = await self.door.fields(request)
        inputs = self.inputs(fields, "inputs")
        task = Task("token_embeddings")
        computed, headers = await self.compute(request, self.served, inputs, self._reading(fields), task)
        return json_response(computed.results, headers=headers)

    async def _similarity(self, request: Request) -> Response:
        fields = await self.door.fields(request)
        texts = fields.object("inputs")
        source = texts.any("source_sentence")
        sentences = texts.any("sentences")
        if not isinstance(sentences, list):
            raise texts.problem("sentences", "a list of strings", "another value")
        if not sentences:
            raise RequestError(EMPTY, "`inputs.sentences` cannot be empty", param="sentences")
        inputs = self.inputs(Fields({"inputs": [source, *sentences]}), "inputs")
        reading = self._reading(fields.object("parameters"))
        computed, headers = await self.compute(request, self.served, inputs, reading, Task())
        vectors: FloatArray = computed.matrix
        return json_response(cos_sim(vectors[:1], vectors[1:])[0], headers=headers)

    async def _tokenize(self, request: Request) -> Response:
        fields = await self.door.fields(request)
        value = fields.any("inputs")
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise fields.problem("inputs", "a string or a list of strings", "another value")
        self.check_count(len(texts), "inputs")
        special_tokens = fields.flag("add_special_tokens", True)
        prefix = self.served.prefix(fields.get("prompt_name", str, "a string"))
        tokens_of = self.served.model.tokenizer.tokens_of

        def tokenize() -> Response:
            rows = (tokens_of(prefix + text, special_tokens=special_tokens) for text in texts)
            return json_response([[token._asdict() for token in row] for row in rows])

        return await self.served.aside(tokenize)

    async def _decode(self, request: Request) -> Response:
        fields = await self.door.fields(request)
        value = fields.any("ids")
        rows = value if isinstance(value, list) and as_ids(value) is None else [value]
        lists = [ids for ids in map(as_ids, rows) if ids is not None]
        if len(lists) < len(rows):
            raise fields.problem("ids", "a list of integers, or a list of such lists", "another value")
        self.check_count(len(lists) if all(lists) else 0, "ids")
        skip_special_tokens = fields.flag("skip_special_tokens", True)
        decode = self.served.model.tokenizer.decode
        try:
            return json_response([decode(ids, skip_special_tokens=skip_special_tokens) for ids in lists])
        except (TypeError, InputError) as error:
            raise RequestError(TOKENIZATION, str(error), param="ids") from error

    async def _info(self, request: Request) -> Response:
        model, limits = self.served.model, self.limits
        return json_response(
            {
                "model_id": self.served.name,
                "model_sha": None,
                "model_dtype": model.bert.dtype,
                "model_type": {"embedding": {"pooling": "+".join(model.pooling_modes)}},
                "max_concurrent_requests": limits.max_concurrent_requests,
                "max_input_length": model.max_seq_length,
                "max_batch_tokens": limits.max_batch_tokens,
                "max_batch_requests": None,
                "max_client_batch_size": limits.max_client_batch_size,
                "auto_truncate": limits.auto_truncate,
                "tokenization_workers": 1,
                "version": __version__,
                "sha": None,
                "docker_label": None,
                "dimension": model.get_sentence_embedding_dimension(),
                "prompts": sorted(model.prompts),
                "unknown_token_id": model.tokenizer.unk_token_id,
            }
        )

    def _reading(self, fields: Fields) -> Reading:
        return Reading(
            truncate=fields.flag("truncate", self.limits.auto_truncate),
            cut_beginning=fields.choice("truncation_direction", _DIRECTIONS).lower() == "left",
            prompt_name=fields.get("prompt_name", str, "a string"),
        )
