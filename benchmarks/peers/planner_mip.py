"""One demand as one complete mixed-integer program: `python planner_mip.py SOLVER D.json LIMIT_S`.

SOLVER is `highs` (needs highspy) or `scip` (needs pyscipopt); D.json is the plain form of
`steelyard plan --demand`, without constraints. One thread, default settings, gap 0.01 %, CPU
seconds where the solver can count them. Prints one JSON object; see benchmarks/planner.py.
"""

import json
import sys
import time
from pathlib import Path

GAP_FRAC = 1e-4


def program(demand):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Prices, and the load of every (offer, bucket) that can be served."""
    prices = [offer["usd_per_hour"] for offer in demand["offers"]]
    rates = [bucket["rate_per_s"] for bucket in demand["buckets"]]
    cells = {
        (o, b): rate / row[b]
        for o, row in enumerate(demand["capacity_per_s"])
        for b, rate in enumerate(rates)
        if row[b]
    }
    return prices, len(rates), cells


def with_highs(prices, buckets, cells, limit_s):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """HiGHS through highspy."""
    import highspy  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    offers, count = len(prices), len(cells)
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = offers + count, buckets + offers
    model.col_cost_ = np.concatenate([prices, np.zeros(count)])
    model.col_lower_ = np.zeros(offers + count)
    model.col_upper_ = np.concatenate([np.full(offers, highspy.kHighsInf), np.ones(count)])
    model.row_lower_ = np.concatenate([np.ones(buckets), np.zeros(offers)])
    model.row_upper_ = np.concatenate([np.ones(buckets), np.full(offers, highspy.kHighsInf)])
    starts = np.concatenate([np.arange(offers), offers + 2 * np.arange(count + 1)])
    index, value = [buckets + o for o in range(offers)], [1.0] * offers
    for (o, b), load in cells.items():
        index += [b, buckets + o]
        value += [1.0, -load]
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_ = starts.astype(np.int32)
    model.a_matrix_.index_ = np.array(index, dtype=np.int32)
    model.a_matrix_.value_ = np.array(value)
    kinds = highspy.HighsVarType
    model.integrality_ = [kinds.kInteger] * offers + [kinds.kContinuous] * count
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("mip_rel_gap", GAP_FRAC)
    solver.setOptionValue("time_limit", limit_s)
    solver.passModel(model)
    solver.run()
    info = solver.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    return info.objective_function_value if found else None, info.mip_dual_bound


def with_scip(prices, buckets, cells, limit_s):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """SCIP through pyscipopt."""
    from pyscipopt import Model, quicksum  # noqa: PLC0415

    model = Model()
    model.hideOutput()
    model.setParam("limits/gap", GAP_FRAC)
    model.setParam("limits/time", limit_s)
    model.setParam("timing/clocktype", 1)
    machines = [model.addVar(vtype="I", obj=price) for price in prices]
    shares = {cell: model.addVar(lb=0.0, ub=1.0) for cell in cells}
    servers = [[] for _ in range(buckets)]
    served = [[] for _ in prices]
    for (o, b), share in shares.items():
        servers[b].append(share)
        served[o].append(cells[o, b] * share)
    for parts in servers:
        model.addCons(quicksum(parts) == 1)
    for n, parts in zip(machines, served, strict=True):
        model.addCons(quicksum(parts) <= n)
    model.optimize()
    return model.getObjVal() if model.getNSols() else None, model.getDualbound()


def main() -> None:
    """Solve and print."""
    name, path, limit_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    prices, buckets, cells = program(json.loads(path.read_text()))
    started_s, cpu_s = time.perf_counter(), time.process_time()
    solve = {"highs": with_highs, "scip": with_scip}[name]
    usd, bound_usd = solve(prices, buckets, cells, limit_s)
    found = {"usd_per_hour": usd, "lower_bound_usd_per_hour": bound_usd}
    found["solve_s"] = time.perf_counter() - started_s
    found["cpu_s"] = time.process_time() - cpu_s
    print(json.dumps(found))


if __name__ == "__main__":
    main()
