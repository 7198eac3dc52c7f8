"""The description of all routes, in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any, NamedTuple

from gte_np import __version__
from gte_np.serve.options import MOST_INPUTS

Schema = dict[str, Any]


class Served(NamedTuple):
    """What of a server its description depends on: the names of its models, the prompts of the first, its limits."""

    names: list[str]
    prompts: list[str]
    dimension: int
    most_inputs: int
    largest_id: int
    takes_ids: bool
    needs_key: bool


_STRING: Schema = {"type": "string"}
_ERROR_TYPES = ("Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized")
_COUNT: Schema = {"type": "integer", "minimum": 0}
_NULL: Schema = {"type": "null"}
_FLAG: Schema = {"type": "boolean"}
_DIRECTIONS = ("right", "left", "Right", "Left")
_VECTOR: Schema = {"type": "array", "items": {"type": "number"}}
_TEXT: Schema = {"type": "string", "minLength": 1}

TEI, OPENAI, OTHERS = "text-embeddings-inference", "OpenAI", "The server"


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def _object(required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required.split()}


def _or_null(schema: Schema, about: str, **more: Any) -> Schema:
    return {"anyOf": [schema, _NULL], "description": about, **more}


def _inputs(*shapes: Schema) -> Schema:
    return {"anyOf": list(shapes)}


_ANSWERS: dict[str, Schema] = {
    "Token": _object(
        "id text special start stop",
        id=_COUNT,
        text=_STRING,
        special={"type": "boolean"},
        start=_or_null(_COUNT, "The first character, in the text with its prompt"),
        stop=_or_null(_COUNT, "The character after the last"),
    ),
    "Info": _object(
        "model_id model_dtype model_type max_concurrent_requests max_input_length max_batch_tokens "
        "max_client_batch_size auto_truncate version dimension prompts unknown_token_id",
        model_id=_STRING,
        model_sha=_NULL,
        model_dtype=_STRING,
        model_type=_object("embedding", embedding=_object("pooling", pooling=_STRING)),
        max_concurrent_requests=_COUNT,
        max_input_length=_COUNT,
        max_batch_tokens=_COUNT,
        max_batch_requests=_NULL,
        max_client_batch_size=_COUNT,
        auto_truncate={"type": "boolean"},
        tokenization_workers=_COUNT,
        version=_STRING,
        sha=_NULL,
        docker_label=_NULL,
        dimension=_COUNT,
        prompts=_list(_STRING),
        unknown_token_id=_COUNT,
    ),
    "Error": _object(
        "error error_type",
        error=_STRING,
        error_type={"enum": list(_ERROR_TYPES)},
    ),
    "Embeddings": _object(
        "object data model usage",
        object={"const": "list"},
        data=_list(
            _object(
                "object index embedding",
                object={"const": "embedding"},
                index=_COUNT,
                embedding=_inputs(_VECTOR, _STRING),
            )
        ),
        model=_STRING,
        usage=_object("prompt_tokens total_tokens", prompt_tokens=_COUNT, total_tokens=_COUNT),
    ),
    "Model": _object(
        "id object created owned_by", id=_STRING, object={"const": "model"}, created=_COUNT, owned_by=_STRING
    ),
    "Models": _object("object data", object={"const": "list"}, data=_list(_ref("Model"))),
    "OpenAIError": _object(
        "error",
        error=_object(
            "message type param code",
            message=_STRING,
            type=_STRING,
            param=_or_null(_STRING, "The field at fault"),
            code=_or_null(_STRING, "The name of the mistake"),
        ),
    ),
}

_REFUSALS = {
    "400": "No inputs, an empty input, or no JSON",
    "401": "A wrong key, or none",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is not application/json",
    "422": "A field that cannot be used, too many inputs, or a text that is too long and may not be cut",
    "424": "The model could not compute",
    "429": "Too many requests wait; Retry-After says when to try again",
}
_OPENAI_REFUSALS = {status: about for status, about in _REFUSALS.items() if status not in ("422", "424")} | {
    "400": "A field that cannot be used",
    "404": "No such model is served",
    "500": "The model could not compute",
}


def _requests(served: Served) -> dict[str, Schema]:
    """What can be sent to a server: prompts, names and dimensions of its models, and ids if they are allowed."""
    text = {**_TEXT, "description": "A text"}
    ids = _list({**_COUNT, "maximum": served.largest_id}, minItems=1, description="Token ids")
    one = [text, ids] if served.takes_ids else [text]
    inputs = _inputs(*one, _list(_inputs(*one), minItems=1, maxItems=served.most_inputs))
    dimensions = _or_null(
        {"type": "integer", "minimum": 1, "maximum": served.dimension}, "How many are kept, the first"
    )
    prompt_name = _or_null({"enum": served.prompts}, "A prompt of the model, which goes before each text")
    reading = {
        "truncate": _or_null(_FLAG, "Cut texts that are too long; by default as --auto-truncate says"),
        "truncation_direction": _or_null(
            {"enum": list(_DIRECTIONS)}, "Where texts are cut: at the end, or the beginning"
        ),
        "prompt_name": prompt_name,
    }
    normalize = _or_null(_FLAG, "Whether vectors have length 1", default=True)
    texts = _list(_TEXT, minItems=1, maxItems=served.most_inputs - 1)
    parameters = _object("", **reading)
    return {
        "EmbedRequest": _object("inputs", inputs=inputs, normalize=normalize, dimensions=dimensions, **reading),
        "EmbedAllRequest": _object("inputs", inputs=inputs, **reading),
        "SimilarityRequest": _object(
            "inputs",
            inputs=_object("source_sentence sentences", source_sentence=_TEXT, sentences=texts),
            parameters=_or_null(parameters, "How texts are read"),
        ),
        "TokenizeRequest": _object(
            "inputs",
            inputs=_inputs(_STRING, _list(_STRING, minItems=1, maxItems=served.most_inputs)),
            add_special_tokens=_or_null(_FLAG, "Whether [CLS] and [SEP] are among them", default=True),
            prompt_name=prompt_name,
        ),
        "DecodeRequest": _object(
            "ids",
            ids=_inputs(ids, _list(ids, minItems=1, maxItems=served.most_inputs)),
            skip_special_tokens=_or_null(_FLAG, "Whether [CLS] and its like are left out", default=True),
        ),
        "EmbeddingsRequest": _object(
            "input",
            input=inputs,
            model=_or_null({"enum": [*served.names, TEI]}, "A model that is served; by default the first"),
            encoding_format=_or_null(
                {"enum": ["float", "base64"]}, "Numbers, or base64 of little-endian float32", default="float"
            ),
            dimensions=dimensions,
            user=_or_null(_STRING, "Not used"),
        ),
    }


def description(served: Served) -> Schema:
    """The description of a server."""
    described = _description(served)
    if not served.needs_key:
        for operations in described["paths"].values():
            for operation in operations.values():
                operation["security"] = []
    return described


def _description(served: Served) -> Schema:
    embed = _post("Vectors of texts: (B, D)", "EmbedRequest", _list(_VECTOR))
    return {
        "openapi": "3.1.0",
        "info": {"title": "gte_np", "version": __version__, "license": {"name": "MIT", "identifier": "MIT"}},
        "paths": {
            "/": {"get": _get("Health; the page, if HTML is asked for", None, OTHERS, key=False), "post": embed},
            "/embed": {"post": embed},
            "/embed_all": {"post": _post("Hidden states of all tokens", "EmbedAllRequest", _list(_list(_VECTOR)))},
            "/similarity": {"post": _post("Cosine similarities to one text", "SimilarityRequest", _VECTOR)},
            "/tokenize": {"post": _post("Tokens of texts, uncut", "TokenizeRequest", _list(_list(_ref("Token"))))},
            "/decode": {"post": _post("Texts of token ids", "DecodeRequest", _list(_STRING))},
            "/info": {"get": _get("The model and the limits", _ref("Info"), TEI)},
            "/health": {"get": _get("Whether the model computes", None, TEI, key=False)},
            "/ping": {"get": _get("Whether the model computes", None, TEI, key=False)},
            "/metrics": {"get": _metrics()},
            "/v1/embeddings": {"post": _openai_post()},
            "/v1/models": {"get": _get("The models that are served", _ref("Models"), OPENAI)},
            "/v1/models/{name}": {"get": _model_get(served.names)},
        },
        "components": {
            "schemas": _ANSWERS | _requests(served),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _answers(schema: Schema | None, refusals: dict[str, str], error: str) -> Schema:
    success: Schema = {"description": "Success"}
    if schema is not None:
        success["content"] = {"application/json": {"schema": schema}}
    content = {"application/json": {"schema": _ref(error)}}
    return {"200": success} | {
        status: {"description": about, "content": content} for status, about in refusals.items()
    }


def _body(name: str) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": _ref(name)}}}


def _post(summary: str, request: str, schema: Schema) -> Schema:
    answers = _answers(schema, _REFUSALS, "Error")
    return {
        "tags": [TEI],
        "summary": summary,
        "security": [{"key": []}],
        "requestBody": _body(request),
        "responses": answers,
    }


def _openai_post() -> Schema:
    summary = f"Vectors of at most {MOST_INPUTS} texts"
    answers = _answers(_ref("Embeddings"), _OPENAI_REFUSALS, "OpenAIError")
    body = _body("EmbeddingsRequest")
    return {
        "tags": [OPENAI],
        "summary": summary,
        "security": [{"key": []}],
        "requestBody": body,
        "responses": answers,
    }


def _get(summary: str, schema: Schema | None, tag: str, *, key: bool = True) -> Schema:
    error = "OpenAIError" if tag == OPENAI else "Error"
    refusals = {"401": _REFUSALS["401"]} if key else {"503": "The model does not compute any more"}
    security: list[Schema] = [{"key": []}] if key else []
    return {"tags": [tag], "summary": summary, "security": security, "responses": _answers(schema, refusals, error)}


def _model_get(names: list[str]) -> Schema:
    operation = _get("One model", _ref("Model"), OPENAI)
    operation["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"enum": names}}]
    refusals = {status: _OPENAI_REFUSALS[status] for status in ("401", "404")}
    return operation | {"responses": _answers(_ref("Model"), refusals, "OpenAIError")}


def _metrics() -> Schema:
    text = {"text/plain": {"schema": _STRING}}
    answer = {"200": {"description": "Metrics in Prometheus' format", "content": text}}
    return {"tags": [OTHERS], "summary": "What was counted", "security": [], "responses": answer}
