"""Why two texts have the cosine that they have: every step of the encoder, opened.

Read `contributions` first: for mean pooling it is all that there is to know. `deletion` and `attribution` are for
models that read one token; `derivative` is what the latter needs. `explanation` puts all parts together, `walk`
follows one token through the encoder, and `page` shows them.
"""

from gte_np.explanation.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
