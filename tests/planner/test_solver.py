import subprocess
import sys
from pathlib import Path

# A plan for two offers that HiGHS 1.15.1 does not survive with its default options
# (github.com/ERGO-Code/HiGHS/issues/3262).
_DEADLY = r"""
min
 obj: +1.29586218803403 c0 +2.36317714925664 c1 +1116.61383781157 c2 +1116.61383781157 c3
 +1116.61383781157 c4
st
 r0: +1 c2 +1 c5 +1 c6 = +1
 r1: +1 c3 +1 c7 = +1
 r2: +1 c4 +1 c8 = +1
 r3: +1 c0 -0.861676378956314 c5 >= +0
 r4: +1 c1 -0.641984557664954 c6 >= +0
 r5: +1 c0 >= +0
 r6: +1 c1 -0.513587646131963 c7 >= +0
 r7: +1 c0 -0.689341103165051 c8 >= +0
 r8: +1 c1 >= +0
 r9: +0.38875865641021 c0 -1.65422400447965 c1 <= +0
 r10: -0.907103531623824 c0 +0.708953144776993 c1 <= +0
 r11: -0.641984557664954 c1 +0.641984557664954 c6 <= +0
 r12: -0.513587646131963 c1 +0.513587646131963 c7 <= +0
 r13: -0.689341103165051 c0 +0.689341103165051 c8 <= +0
bounds
 c2 = 0
 c3 = 0
 c4 = 0
gen
 c0
 c1
end
"""
_SOLVE = """
import sys
from steelyard.planner.solver import quiet_solver

solver = quiet_solver(10.0)
solver.readModel(sys.argv[1])
solver.run()
print(solver.modelStatusToString(solver.getModelStatus()))
"""


def test_the_solver_survives_a_program_that_kills_it_by_default(tmp_path: Path) -> None:
    path = tmp_path / "plan.lp"
    path.write_text(_DEADLY, encoding="ascii")
    ran = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _SOLVE, str(path)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "Optimal\n"), ran.stderr
