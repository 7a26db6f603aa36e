"""Words that settings of several kinds of pools choose from."""

from typing import Literal

EngineChoice = Literal["auto", "openvino", "llamacpp"]
PrecisionChoice = Literal["auto", "native", "f32", "int8"]
SandboxChoice = Literal["auto", "bubblewrap", "landlock", "off"]
