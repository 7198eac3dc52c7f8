"""Try the clients that people have against a server: python -m scripts.serve_clients MODEL.

`make clients` installs them, in an environment of their own and in build/node, and runs this. Each client asks a
server process on loopback, and must get the very bits that `encode` gives. schemathesis then sends what it makes up
from the server's description of itself, and no answer may be outside of it, or a server's error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gte_np import EmbeddingModel
from scripts.server import serving

TEXTS = ["That is a happy person", "That is a very happy person", "今天中午吃什么", "the sea " * 700]
NODE_CLIENT = Path(__file__).with_name("serving") / "openai_client.mjs"
NODE_PACKAGES = Path("build/node")
KEY = "a-key-of-the-clients"
NAMED = ("--served-model-name", "small")


def main() -> None:
    """Try all clients, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    options = parser.parse_args()
    model = EmbeddingModel(options.model)
    expected = model.encode(TEXTS)
    with serving(options.model, *NAMED, "--api-key", KEY, "--max-client-batch-size", "32") as address:
        for client in (openai, async_openai, node_openai, langchain_openai, curl):
            compare(client, address, expected)
        fuzz(address)
    with serving(options.model, *NAMED) as address:  # these send no key to an address of one's own
        for client in (feature_extraction, llama_index, haystack):
            compare(client, address, expected)


def compare(client: Callable[[str], Any], address: str, expected: Any) -> None:
    """Raise AssertionError for a client that gets other vectors."""
    found = np.array(client(address), np.float32)
    assert np.array_equal(found, expected), client.__name__
    print(f"{client.__name__}: {len(found)} vectors, all bits equal", flush=True)


def openai(address: str) -> Any:
    """OpenAI's client, which asks for base64 unless it is told otherwise."""
    from openai import BadRequestError, NotFoundError, OpenAI

    client = OpenAI(base_url=f"{address}/v1", api_key=KEY)
    assert [model.id for model in client.models.list()] == ["small"]
    assert client.models.retrieve("small").id == "small"
    for error, options in (
        (NotFoundError, {"model": "other"}),
        (BadRequestError, {"model": "small", "dimensions": 0}),
    ):
        try:
            client.embeddings.create(input="a", **options)
        except error:
            continue
        raise AssertionError(f"expected {error.__name__}")
    as_numbers = client.embeddings.create(model="small", input=TEXTS, encoding_format="float")
    answer = client.embeddings.create(model="small", input=TEXTS)
    numbers = np.array([row.embedding for row in as_numbers.data], np.float32)
    assert np.array_equal(numbers, np.array([row.embedding for row in answer.data], np.float32))
    assert answer.usage.prompt_tokens > 0
    return [row.embedding for row in answer.data]


def async_openai(address: str) -> Any:
    """The same, for asyncio: a request for each text, all at once."""
    from openai import AsyncOpenAI

    async def ask() -> Any:
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key=KEY) as client:
            work = [client.embeddings.create(model="small", input=text) for text in TEXTS]
            return [answer.data[0].embedding for answer in await asyncio.gather(*work)]

    return asyncio.run(ask())


def node_openai(address: str) -> Any:
    """OpenAI's client for Node.js, which asks for base64, too."""
    command = ["node", "--input-type=module", "-", "small", json.dumps(TEXTS)]
    environment = os.environ | {"OPENAI_BASE_URL": f"{address}/v1", "OPENAI_API_KEY": KEY}
    with NODE_CLIENT.open("rb") as program:  # from standard input, it imports what the folder has
        return json.loads(subprocess.check_output(command, stdin=program, cwd=NODE_PACKAGES, env=environment))


def langchain_openai(address: str) -> Any:
    """LangChain's, which must be told to send texts."""
    from langchain_openai import OpenAIEmbeddings

    options: dict[str, Any] = {"base_url": f"{address}/v1", "api_key": KEY, "model": "small"}
    return OpenAIEmbeddings(**options, check_embedding_ctx_length=False).embed_documents(TEXTS)


def curl(address: str) -> Any:
    """The command."""
    headers = ["Content-Type: application/json", f"Authorization: Bearer {KEY}"]
    command = ["curl", "-s", f"{address}/embed", *(part for header in headers for part in ("-H", header))]
    return json.loads(subprocess.check_output([*command, "-d", json.dumps({"inputs": TEXTS})]))


def feature_extraction(address: str) -> Any:
    """huggingface_hub's client."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(address)
    assert len(client.sentence_similarity(TEXTS[0], other_sentences=TEXTS[1:], model=f"{address}/similarity")) == 3
    return client.feature_extraction(TEXTS, truncate=True)


def llama_index(address: str) -> Any:
    """LlamaIndex's client for text-embeddings-inference."""
    from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

    return TextEmbeddingsInference(model_name="small", base_url=address).get_text_embedding_batch(TEXTS)


def haystack(address: str) -> Any:
    """Haystack's client for text-embeddings-inference, which takes one text."""
    from haystack_integrations.components.embedders.huggingface_api import HuggingFaceAPITextEmbedder

    embedder = HuggingFaceAPITextEmbedder(
        api_type="text_embeddings_inference", api_params={"url": address}, token=None, truncate=True, normalize=True
    )
    return [embedder.run(text)["embedding"] for text in TEXTS]


def fuzz(address: str) -> None:
    """Raise CalledProcessError for an answer that the description does not have, and for a server's error."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{address}/openapi.json", "--seed", "1"]
    subprocess.run(
        [*command, "--max-examples", "100", "--request-timeout", "60", "-H", f"Authorization: Bearer {KEY}"],
        check=True,
    )


if __name__ == "__main__":
    main()
