"""The solver, set up to be silent and to do the same every time."""

import highspy


def quiet_solver(time_limit_s: float | None = None) -> highspy.Highs:
    """A HiGHS instance on one thread with a fixed seed and no output.

    Args:
        time_limit_s: Wall seconds after which it stops; None without a limit.
    """
    # The bindings carry no annotations for this constructor.
    solver = highspy.Highs()  # type: ignore[no-untyped-call]
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("random_seed", 1)
    # HiGHS 1.15.1 dies in this heuristic on some small programs (its issue 3262); the search has
    # feasible fleets of its own.
    solver.setOptionValue("mip_heuristic_run_feasibility_jump", False)
    if time_limit_s is not None:
        solver.setOptionValue("time_limit", time_limit_s)
    return solver
