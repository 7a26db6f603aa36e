"""How well does a loaded OpenVINO model predict fixed texts? Guards against copies that lose.

The texts are the openings of "Pride and Prejudice" (1813) and "Moby-Dick" (1851), in the public
domain. A model has surely read them, which does not matter to a comparison of two copies of it.
"""

import math
from collections.abc import Sequence
from typing import Any

TEXTS = (
    (
        "It is a truth universally acknowledged, that a single man in possession of a good "
        "fortune, must be in want of a wife. However little known the feelings or views of "
        "such a man may be on his first entering a neighbourhood, this truth is so well "
        "fixed in the minds of the surrounding families, that he is considered as the "
        "rightful property of some one or other of their daughters."
    ),
    (
        "Call me Ishmael. Some years ago - never mind how long precisely - having little or "
        "no money in my purse, and nothing particular to interest me on shore, I thought I "
        "would sail about a little and see the watery part of the world. It is a way I have "
        "of driving off the spleen and regulating the circulation. Whenever I find myself "
        "growing grim about the mouth; whenever it is a damp, drizzly November in my soul; "
        "whenever I find myself involuntarily pausing before coffin warehouses, and "
        "bringing up the rear of every funeral I meet."
    ),
)


def perplexity(logprobs: Sequence[float]) -> float:
    """How many tokens seemed equally likely, on average? The exponential of the mean surprise.

    Args:
        logprobs: Natural logarithms of the probabilities of a text's tokens; shape (tokens,).

    Returns:
        exp(-mean), at least 1; infinite for no tokens. Jelinek et al., "Perplexity - a measure of
        the difficulty of speech recognition tasks" (1977).

    >>> round(perplexity([math.log(0.5), math.log(0.5)]), 9)
    2.0
    """
    if not logprobs:
        return math.inf
    return math.exp(-math.fsum(logprobs) / len(logprobs))


def pipeline_perplexity(pipeline: Any) -> float:  # noqa: ANN401 - the library has no types
    """Perplexity of the fixed texts under a ContinuousBatchingPipeline of OpenVINO GenAI."""
    tokenizer = pipeline.get_tokenizer()
    logprobs: list[float] = []
    for text in TEXTS:
        token_ids: list[int] = tokenizer.encode(text).input_ids.data.tolist()[0]
        logprobs += prompt_logprobs(pipeline, token_ids)
    return perplexity(logprobs)


def prompt_logprobs(pipeline: Any, token_ids: list[int]) -> list[float]:  # noqa: ANN401 - as above
    """Log-probabilities of a prompt's tokens but the first, as the library echoes them.

    Args:
        pipeline: One that has nothing else to do, and has not cached the prompt.
        token_ids: The prompt.

    Returns:
        Natural logarithms; shape (tokens - 1,).
    """
    import numpy as np  # noqa: PLC0415 - with the library, an optional extra
    import openvino  # noqa: PLC0415
    import openvino_genai  # noqa: PLC0415

    config: Any = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.logprobs, config.echo = 1, 1, True
    tensor = openvino.Tensor(np.array([token_ids], dtype=np.int64))
    handle = pipeline.add_request(0, tensor, config)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    echoed = [p for output in handle.read_all() for p in output.generated_log_probs]
    return echoed[1 : len(token_ids)]
