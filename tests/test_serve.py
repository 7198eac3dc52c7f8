"""The two interfaces, in process: each route, its answers, its errors, and that both fit their description."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from gte_np import EmbeddingModel, __version__, cos_sim
from gte_np.serve.app import create_app
from gte_np.serve.options import Limits
from tests.checkpoints import small_model

TEXTS = ["That is a happy person", "中国的首都是哪里", "the sea"]
LONG = "the sea is a happy person " * 40
KEY = "a-key-of-the-server"
SECRET = "happysecretperson"


@pytest.fixture(scope="module")
def client(small: EmbeddingModel) -> Iterator[TestClient]:
    with TestClient(create_app({"small": small})) as client:
        yield client


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """A model that does not normalise by itself, and has a prompt."""
    folder = small_model(tmp_path_factory.mktemp("plain"))
    (folder / "modules.json").unlink()
    return EmbeddingModel(folder, pooling="mean", prompts={"query": "a happy "})


@pytest.fixture(scope="module")
def two(small: EmbeddingModel, plain: EmbeddingModel) -> Iterator[TestClient]:
    limits = Limits(
        api_key=KEY, payload_limit=5000, max_client_batch_size=8, auto_truncate=False, allow_token_ids=True
    )
    with TestClient(create_app({"small": small, "org/plain": plain}, limits)) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


def post(client: TestClient, path: str, **fields: Any) -> httpx2.Response:
    return client.post(path, json=fields)


def vectors(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json(), np.float32)


def of_openai(answer: httpx2.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert [row["index"] for row in answer.json()["data"]] == list(range(len(answer.json()["data"])))
    return np.array([row["embedding"] for row in answer.json()["data"]], np.float32)


# --- OpenAI's interface ------------------------------------------------------------------------------------------


def test_openai_gives_the_bits_of_encode(client: TestClient, small: EmbeddingModel) -> None:
    answer = post(client, "/v1/embeddings", input=TEXTS, model="small")
    assert np.array_equal(of_openai(answer), small.encode(TEXTS))
    assert answer.json().keys() == {"object", "data", "model", "usage"}
    tokens = int(small.tokenize(TEXTS).lengths.sum())
    assert answer.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert (answer.json()["object"], answer.json()["model"]) == ("list", "small")
    single = post(client, "/v1/embeddings", input=TEXTS[1])
    assert np.array_equal(of_openai(single), small.encode(TEXTS[1:2]))


def test_openai_base64_is_little_endian_float32(client: TestClient, small: EmbeddingModel) -> None:
    answer = post(client, "/v1/embeddings", input=TEXTS, encoding_format="base64").json()
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    assert np.array_equal(np.stack(rows), small.encode(TEXTS))


def test_openai_dimensions_are_cut_and_then_normalised(client: TestClient, small: EmbeddingModel) -> None:
    found = of_openai(post(client, "/v1/embeddings", input=TEXTS, dimensions=5))
    assert np.array_equal(found, small.encode(TEXTS, truncate_dim=5, normalize_embeddings=True))
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)


def test_openai_cuts_long_texts_and_counts_what_is_read(client: TestClient, small: EmbeddingModel) -> None:
    answer = post(client, "/v1/embeddings", input=LONG)
    assert np.array_equal(of_openai(answer)[0], small.encode(LONG))
    assert answer.json()["usage"]["prompt_tokens"] == small.max_seq_length


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({}, "input", "to be a value, got none"),
        ({"input": None}, "input", "to be a value, got none"),
        ({"input": 3}, "input", "a string or a list of strings"),
        ({"input": ["a", None]}, "input", "a string or a list of strings"),
        ({"input": ["a", True]}, "input", "a string or a list of strings"),
        ({"input": ""}, "input", "cannot be empty"),
        ({"input": []}, "input", "cannot be empty"),
        ({"input": ["a", ""]}, "input", "cannot be empty"),
        ({"input": ["a"] * 2049}, "input", "batch size 2049 > maximum allowed batch size 2048"),
        ({"input": [1, 2]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, "input", "--allow-token-ids"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "one of float, base64"),
        ({"input": "a", "dimensions": 0}, "dimensions", "from 1 to 32, got 0"),
        ({"input": "a", "dimensions": 33}, "dimensions", "from 1 to 32, got 33"),
        ({"input": "a", "dimensions": "3"}, "dimensions", "an integer, got a string"),
        ({"input": "a", "dimensions": True}, "dimensions", "an integer, got true or false"),
        ({"input": "a", "model": 3}, "model", "a string, got a number"),
    ],
)
def test_openai_refuses(client: TestClient, fields: dict[str, Any], param: str, message: str) -> None:
    answer = client.post("/v1/embeddings", json=fields)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_openai_models(two: TestClient, small: EmbeddingModel, plain: EmbeddingModel) -> None:
    assert [row["id"] for row in two.get("/v1/models").json()["data"]] == ["small", "org/plain"]
    assert two.get("/v1/models/org/plain").json() == {
        "id": "org/plain",
        "object": "model",
        "created": 0,
        "owned_by": "gte_np",
    }
    expected = plain.encode("the sea", normalize_embeddings=True)
    assert np.array_equal(of_openai(post(two, "/v1/embeddings", input="the sea", model="org/plain"))[0], expected)
    for name in (None, "text-embeddings-inference", "small"):
        found = of_openai(post(two, "/v1/embeddings", input="the sea", model=name))[0]
        assert np.array_equal(found, small.encode("the sea"))
    for answer in (two.get("/v1/models/other"), post(two, "/v1/embeddings", input="a", model="other")):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "small, org/plain" in answer.json()["error"]["message"]


def test_token_ids_where_they_are_allowed(two: TestClient, small: EmbeddingModel) -> None:
    batch = small.tokenize(TEXTS)
    ids = [batch[index].tolist() for index in range(3)]
    assert np.array_equal(of_openai(post(two, "/v1/embeddings", input=ids)), small.encode(TEXTS))
    assert np.array_equal(of_openai(post(two, "/v1/embeddings", input=ids[0]))[0], small.encode(TEXTS[0]))
    assert np.array_equal(vectors(post(two, "/embed", inputs=[*ids[:2], TEXTS[2]])), small.encode(TEXTS))
    for wrong in ([5, 200], [-1], [2**40]):
        answer = post(two, "/v1/embeddings", input=wrong)
        assert answer.status_code == 400
        assert "expected token ids from 0 to 199" in answer.json()["error"]["message"]


# --- text-embeddings-inference's interface -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_embed(client: TestClient, small: EmbeddingModel, path: str) -> None:
    answer = post(client, path, inputs=TEXTS)
    assert np.array_equal(vectors(answer), small.encode(TEXTS))
    assert np.array_equal(vectors(post(client, path, inputs=TEXTS[0])), small.encode(TEXTS[:1]))
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == str(sum(map(len, TEXTS)))
    assert answer.headers["x-compute-tokens"] == str(small.tokenize(TEXTS).lengths.sum())
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert answer.headers[name].isdigit()


def test_embed_options(two: TestClient, plain: EmbeddingModel) -> None:
    path = "/models/org/plain/embed"
    for options, expected in (
        ({"normalize": False}, plain.without_normalize().encode(TEXTS)),
        ({"normalize": None}, plain.encode(TEXTS, normalize_embeddings=True)),
        ({"dimensions": 3}, plain.encode(TEXTS, normalize_embeddings=True, truncate_dim=3)),
        ({"dimensions": 3, "normalize": False}, plain.without_normalize().encode(TEXTS, truncate_dim=3)),
        ({"prompt_name": "query"}, plain.encode(TEXTS, normalize_embeddings=True, prompt_name="query")),
    ):
        assert np.array_equal(vectors(post(two, path, inputs=TEXTS, **options)), expected)


def test_embed_without_the_normalize_of_the_repository(client: TestClient, small: EmbeddingModel) -> None:
    raw = vectors(post(client, "/embed", inputs=TEXTS, normalize=False))
    assert np.array_equal(raw, small.without_normalize().encode(TEXTS))
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.01


def test_embed_truncation(two: TestClient, small: EmbeddingModel) -> None:
    """The server's default is to refuse here; a request may ask for a cut, at either end."""
    answer = post(two, "/embed", inputs=["a", LONG])
    count = int(small.tokenize([LONG]).token_counts[0])
    assert answer.status_code == 422
    assert answer.json() == {
        "error": f"Input validation error: `inputs` must have less than 64 tokens. Given: {count}",
        "error_type": "Validation",
    }
    assert np.array_equal(vectors(post(two, "/embed", inputs=LONG, truncate=True))[0], small.encode(LONG))
    ids = small.tokenizer.tokenize([LONG])[0]
    ending = [*ids[:1], *ids[-63:]]
    for direction in ("left", "Left"):
        found = vectors(post(two, "/embed", inputs=LONG, truncate=True, truncation_direction=direction))
        assert np.array_equal(found, vectors(post(two, "/embed", inputs=[list(map(int, ending))])))
    assert post(two, "/v1/embeddings", input=LONG).status_code == 400


def test_embed_all(client: TestClient, small: EmbeddingModel) -> None:
    rows = post(client, "/embed_all", inputs=TEXTS).json()
    expected = small.encode(TEXTS, output_value="token_embeddings")
    for row, states in zip(rows, expected, strict=True):
        assert np.array_equal(np.array(row, np.float32), states)


def test_embed_all_has_a_limit(client: TestClient) -> None:
    answer = post(client, "/embed_all", inputs=[LONG] * 257)
    assert answer.status_code == 422
    assert answer.json()["error"] == "expected at most 16384 tokens in all, got 16448"


def test_similarity(client: TestClient, small: EmbeddingModel) -> None:
    answer = post(client, "/similarity", inputs={"source_sentence": TEXTS[0], "sentences": TEXTS[1:]})
    expected = cos_sim(small.encode(TEXTS[0]), small.encode(TEXTS[1:]))[0]
    assert np.array_equal(vectors(answer), expected)
    cut = {"source_sentence": LONG, "sentences": ["a"]}
    assert post(client, "/similarity", inputs=cut, parameters={"truncate": False}).status_code == 422
    assert post(client, "/similarity", inputs=cut, parameters={"truncation_direction": "left"}).status_code == 200


def test_tokenize_and_decode(two: TestClient, small: EmbeddingModel) -> None:
    text = "That HAPPY 龘龘"
    (tokens,) = post(two, "/tokenize", inputs=text).json()
    assert [token["id"] for token in tokens] == small.tokenize([text])[0].tolist()
    assert tokens[0] == {"id": tokens[0]["id"], "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert (tokens[1]["text"], tokens[1]["start"], tokens[1]["stop"]) == ("That", 0, 4)
    unknown = two.get("/info").json()["unknown_token_id"]
    assert [token["text"] for token in tokens if token["id"] == unknown] == ["龘", "龘"]
    (bare,) = post(two, "/tokenize", inputs=[text], add_special_tokens=False).json()
    assert bare == tokens[1:-1]
    (prompted,) = post(two, "/models/org/plain/tokenize", inputs=["person"], prompt_name="query").json()
    assert [token["text"] for token in prompted[1:4]] == ["a", "happy", "person"]
    ids = [token["id"] for token in tokens[:3]]
    assert post(two, "/decode", ids=ids).json() == ["that happy"]
    assert post(two, "/decode", ids=list(map(float, ids))).json() == ["that happy"]
    assert post(two, "/decode", ids=[ids, ids[1:2]], skip_special_tokens=False).json() == ["[CLS] that happy", "that"]


@pytest.mark.parametrize(
    ("path", "fields", "status", "error_type"),
    [
        ("/embed", {"inputs": ""}, 400, "Empty"),
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed_all", {"inputs": ["a", ""]}, 400, "Empty"),
        ("/embed", {}, 422, "Validation"),
        ("/embed", {"inputs": {"a": 1}}, 422, "Validation"),
        ("/embed", {"inputs": [3]}, 422, "Validation"),
        ("/embed", {"inputs": ["a"] * 2049}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncate": "yes"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "prompt_name": "other"}, 422, "Validation"),
        ("/embed", {"inputs": "a", "dimensions": 33}, 422, "Validation"),
        ("/embed", {"inputs": "a", "normalize": 1}, 422, "Validation"),
        ("/similarity", {"inputs": "a"}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": "b"}}, 422, "Validation"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty"),
        ("/similarity", {"inputs": {"source_sentence": ["a"], "sentences": ["a"]}}, 422, "Validation"),
        ("/tokenize", {"inputs": []}, 400, "Empty"),
        ("/tokenize", {"inputs": [1]}, 422, "Validation"),
        ("/decode", {"ids": []}, 400, "Empty"),
        ("/decode", {"ids": [[]]}, 400, "Empty"),
        ("/decode", {"ids": "a"}, 422, "Validation"),
        ("/decode", {"ids": [1, "a"]}, 422, "Validation"),
        ("/decode", {"ids": [[1], 2]}, 422, "Validation"),
        ("/decode", {"ids": [5000]}, 422, "Tokenizer"),
        ("/decode", {"ids": [True]}, 422, "Validation"),
    ],
)
def test_tei_refuses(client: TestClient, path: str, fields: dict[str, Any], status: int, error_type: str) -> None:
    answer = client.post(path, json=fields)
    assert (answer.status_code, answer.json()["error_type"]) == (status, error_type)
    assert answer.json().keys() == {"error", "error_type"}


def test_info(two: TestClient, small: EmbeddingModel) -> None:
    info = two.get("/info").json()
    assert info["model_id"] == "small"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (64, 8, False)
    assert info["version"] == __version__
    assert two.get("/models/org/plain/info").json()["model_id"] == "org/plain"


# --- what both share ---------------------------------------------------------------------------------------------


def test_bodies(client: TestClient) -> None:
    json_type = {"Content-Type": "application/json"}
    for path in ("/embed", "/v1/embeddings"):
        for content, headers, status in (
            (b"{", json_type, 400),
            (b'{"input": "\\ud800"}', json_type, 400),
            (b"\xff\xfe", json_type, 400),
            (b"[]", json_type, 400 if path.startswith("/v1") else 422),
            (b"{}", {"Content-Type": "text/plain"}, 415),
            (b"{}", {}, 415),
        ):
            answer = client.post(path, content=content, headers=headers)
            assert answer.status_code == status, (path, content)
            error = answer.json()["error"]
            assert (error["message"] if path.startswith("/v1") else error).startswith("expected ")
    assert post(client, "/embed", inputs="a").status_code == 200


def test_payload_limit(two: TestClient) -> None:
    assert post(two, "/embed", inputs="a" * 4900, truncate=True).status_code == 200
    for path in ("/embed", "/v1/embeddings"):
        answer = two.post(path, json={"inputs": "a" * 5000, "input": "a"})
        assert answer.status_code == 413
        assert "length limit exceeded" in answer.text
    assert post(two, "/embed", inputs=["a"] * 9).status_code == 422
    assert post(two, "/v1/embeddings", input=["a"] * 9).status_code == 400


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Bearer {KEY} ", KEY, f"bearer {KEY}", "Bearer \xff"])
def test_key(two: TestClient, header: str) -> None:
    headers = [(b"Authorization", header.encode("latin-1"))]
    for path in ("/embed", "/v1/embeddings", "/tokenize"):
        answer = two.post(path, content=b"no JSON", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert KEY not in answer.text
    assert two.post("/v1/embeddings", headers=headers).json()["error"]["code"] == "invalid_api_key"
    for path in ("/info", "/v1/models", "/models/org/plain/info"):
        assert two.get(path, headers=headers).status_code == 401
    for path in ("/", "/health", "/ping", "/metrics", "/openapi.json", "/docs"):
        assert two.get(path, headers=headers).status_code == 200


def test_paths_and_methods_that_are_not_there(client: TestClient) -> None:
    assert client.get("/other").json()["error_type"] == "Validation"
    assert client.get("/v1/other").json()["error"]["type"] == "invalid_request_error"
    assert client.get("/embed/").status_code == 404
    answer = client.get("/embed")
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
    assert client.put("/v1/embeddings").status_code == 405


def test_pages(client: TestClient) -> None:
    assert client.get("/", headers={"Accept": "*/*"}).content == b""
    for path in ("/", "/docs"):
        page = client.get(path, headers={"Accept": "text/html,*/*;q=0.8"})
        assert page.headers["content-type"].startswith("text/html")
        for foreign in ("http://", "https://", "src=", "@import", "url("):
            assert foreign not in page.text.replace("http://www.w3.org/2000/svg", "")
        assert "--ground: #fbfaf7" in page.text  # the style of all pages


def test_metrics(small: EmbeddingModel) -> None:
    with TestClient(create_app({"small": small})) as client:
        post(client, "/embed", inputs=TEXTS)
        post(client, "/v1/embeddings", input="a")
        post(client, "/embed", inputs=[])
        lines = client.get("/metrics").text.splitlines()
    for line in (
        'te_request_count{method="batch"} 1.0',
        'te_request_count{method="single"} 1.0',
        'te_request_success{method="batch"} 1.0',
        'te_request_failure{err="empty"} 1.0',
        "te_embed_count 4.0",
        "te_embed_success 4.0",
        "te_queue_size 0.0",
        "te_request_duration_count 2.0",
        "te_embed_duration_count 2.0",
        "te_request_inference_duration_count 2.0",
        "te_request_input_length_count 4.0",
        "te_batch_next_size_sum 4.0",
        "te_batch_next_tokens_count 2.0",
    ):
        assert line in lines


class _Broken:
    """A model that cannot compute while it is broken."""

    def __init__(self, model: EmbeddingModel) -> None:
        self.is_broken, self._model = True, model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_tokens(self, *arguments: Any, **options: Any) -> Any:
        if self.is_broken:
            raise MemoryError(SECRET)
        return self._model.encode_tokens(*arguments, **options)


def test_a_model_that_fails(small: EmbeddingModel, caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = _Broken(small)
    with caplog.at_level(logging.DEBUG), TestClient(create_app({"small": broken})) as client:
        assert client.get("/health").status_code == 200
        answer = post(client, "/embed", inputs=SECRET)
        assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
        answer = post(client, "/v1/embeddings", input=SECRET)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        for path in ("/health", "/ping", "/"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json() == {"error": "unhealthy", "error_type": "Unhealthy"}
        broken.is_broken = False
        assert client.get("/health").status_code == 200
        assert np.array_equal(vectors(post(client, "/embed", inputs="a"))[0], small.encode("a"))
    assert "a request failed: MemoryError" in caplog.text
    assert SECRET not in "".join(record.getMessage() for record in caplog.records if record.name.startswith("gte_np"))


def test_description(client: TestClient) -> None:
    """Each route that is described is there, and each operation that takes a body is refused without one."""
    description = client.get("/openapi.json").json()
    for path, operations in description["paths"].items():
        for method in operations:
            answer = client.request(method, path.replace("{name}", "small"))
            assert answer.status_code == (415 if method == "post" else 200), path
        assert all(operation["security"] == [] for operation in operations.values())
    names = description["components"]["schemas"]["EmbeddingsRequest"]["properties"]["model"]["anyOf"][0]["enum"]
    assert names[0] == "small"


def test_description_of_a_server_with_a_key(two: TestClient) -> None:
    paths = two.get("/openapi.json").json()["paths"]
    for path, operations in paths.items():
        is_open = path in ("/health", "/ping", "/metrics")
        assert all(bool(facts["security"]) != is_open for method, facts in operations.items() if path != "/")
    assert [bool(paths["/"][method]["security"]) for method in ("get", "post")] == [False, True]


def test_limits_that_cannot_be() -> None:
    for limits in ({"max_batch_tokens": 0}, {"payload_limit": -1}, {"api_key": ""}, {"api_key": "钥"}):
        with pytest.raises(ValueError, match="expected "):
            Limits(**limits)


def test_a_request_of_more_than_a_batch(client: TestClient, small: EmbeddingModel) -> None:
    texts = [f"the sea {number} is a happy person" for number in range(1000)]
    assert np.array_equal(vectors(post(client, "/embed", inputs=texts)), small.encode(texts))
    lines = client.get("/metrics").text.splitlines()
    batches = next(line for line in lines if line.startswith("te_batch_next_tokens_sum"))
    count = next(line for line in lines if line.startswith("te_batch_next_tokens_count"))
    assert float(batches.split()[1]) / float(count.split()[1]) <= Limits().max_batch_tokens


def test_package_data() -> None:
    import gte_np.serve

    folder = Path(gte_np.serve.__file__).parent
    assert {path.name for path in folder.glob("*.html")} == {"page.html", "docs.html"}
