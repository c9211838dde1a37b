"""The configuration of a text model behind a SageMaker endpoint; it needs no client."""

from __future__ import annotations

from typing import Literal

from embeddings.sagemaker.config import SageMakerConnection
from generation.rules import RemoteAnswers


class SageMakerGenerationConfig(SageMakerConnection, RemoteAnswers):
    """A text model behind a SageMaker endpoint, in a container of LMI (DJL Serving) or TGI."""

    type: Literal["sagemaker"]
    format: Literal["messages", "inputs"] = "messages"
    """`messages`: OpenAI's chat form, for which the container knows the model's chat template. `inputs`: one prompt of text."""
    chat_template: Literal["plain", "chatml", "llama3"] = "plain"
    """How turns are written as one prompt, for `format: inputs`; the model was trained with one of them."""
