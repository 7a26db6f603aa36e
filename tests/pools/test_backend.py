import subprocess
import sys


def test_importing_pools_loads_neither_engine_nor_http_stack() -> None:
    program = (
        "import sys, steelyard.pools, steelyard.pools.backend, steelyard.pools.engine.pool;"
        "heavy = {'aiohttp', 'openvino', 'openvino_genai', 'numpy', 'xllamacpp'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
