"""The models of the GTE card's tables that gte_np runs, and what their repositories leave unsaid."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class KnownModel:
    """One model: facts from its repository and its README.

    `dimension` is D and `layers` is L; `max_tokens` is the limit of a text in tokens; `size_mb` is the size of the
    published weights in MB (10^6 bytes), in the precision `dtype`. `prompts` go before a text: "query" before what
    one searches with, "document" before what one searches in.
    """

    name: str
    language: str
    dimension: int
    layers: int
    max_tokens: int
    pooling: str
    dtype: str
    size_mb: int
    prompts: dict[str, str] = field(default_factory=dict)


_BGE = {"query": "为这个句子生成表示以用于检索相关文章："}
# For retrieval and reranking, with an ASCII colon and a space: stella's README says so, and piccolo's says that it
# was trained so (but its snippet has full-width colons).
_PICCOLO = {"query": "查询: ", "document": "结果: "}

KNOWN_MODELS: dict[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel("thenlper/gte-large-zh", "zh", 1024, 24, 512, "cls", "float16", 651),
        KnownModel("thenlper/gte-base-zh", "zh", 768, 12, 512, "cls", "float16", 205),
        KnownModel("thenlper/gte-small-zh", "zh", 512, 6, 512, "cls", "float16", 60),
        KnownModel("thenlper/gte-large", "en", 1024, 24, 512, "mean", "float16", 670),
        KnownModel("thenlper/gte-base", "en", 768, 12, 512, "mean", "float16", 219),
        KnownModel("thenlper/gte-small", "en", 384, 12, 512, "mean", "float16", 67),
        KnownModel("infgrad/stella-large-zh-v2", "zh", 1024, 24, 1024, "mean", "float16", 652),
        KnownModel("infgrad/stella-base-zh-v2", "zh", 768, 12, 1024, "mean", "float16", 205),
        KnownModel("infgrad/stella-large-zh", "zh", 1024, 24, 1024, "mean", "float16", 652, _PICCOLO),
        KnownModel("infgrad/stella-base-zh", "zh", 768, 12, 1024, "mean", "float16", 205, _PICCOLO),
        KnownModel("BAAI/bge-large-zh-v1.5", "zh", 1024, 24, 512, "cls", "float32", 1302, _BGE),
        KnownModel("BAAI/bge-small-zh-v1.5", "zh", 512, 4, 512, "cls", "float32", 96, _BGE),
        KnownModel("sensenova/piccolo-large-zh", "zh", 1024, 24, 512, "mean", "float16", 651, _PICCOLO),
        KnownModel("sensenova/piccolo-base-zh", "zh", 768, 12, 512, "mean", "float16", 205, _PICCOLO),
        KnownModel("moka-ai/m3e-base", "zh, en", 768, 12, 512, "mean", "float32", 409),
    )
}
