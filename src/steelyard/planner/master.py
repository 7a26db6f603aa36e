"""The planning problem as a linear program that grows by columns and cuts.

Variables: n_o machines of offer o (USD/h each), and for every block s the share x_sob of bucket b
that offer o serves. Block 0 is the normal day; every loss that must be survived (`Demand.losses`:
of a provider, a region, all spot machines) has one more block, without the lost offers and with
the share of the rates that must be left. Constraints:

    sum_o x_sob = 1                                  every block s, bucket b
    sum_b load_sob * x_sob <= n_o                    every block s, offer o
    n_o <= stock_o
    sum_{o of p} usd_o n_o <= cap * sum_o usd_o n_o  every provider p

With `overspend` the right-hand sides of the last rows, and the cost, count money W >= 0 that buys
nothing: a relaxation that stands for offers which are left out because a cheaper one of the same
provider does as much (`planner.dominance`). Replacing them costs each provider no more, and W is
what was saved.

Most of the shares are 0 in any good plan, so columns x_sob are added only when their reduced cost
is negative (column generation): the bound holds for all of them.
"""

import highspy
import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.errors import SolverError
from steelyard.planner.deadline import Deadline, TimeUp
from steelyard.planner.demand import Demand, FloatArray
from steelyard.planner.program import blocks_of, cap_rows, least_covers, program_without_shares
from steelyard.planner.solver import quiet_solver

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
INFINITY = highspy.kHighsInf
FIRST_COLUMNS = 4
PRICED_COLUMNS = 3
LOOSE = 1e-6
MANY_BLOCKS = 6


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """`machines . n + values . x[cells] >= at_least`, kept by every whole fleet.

    Attributes:
        machines: Coefficients of n, shape (offers,).
        cells: Shares with a coefficient, as indices into loads.ravel(), priced in or not.
        values: Their coefficients.
        at_least: Right-hand side.
    """

    machines: FloatArray
    cells: IntArray
    values: FloatArray
    at_least: float


class Master:
    """The linear program in the solver, with what is known of its solution.

    Attributes:
        usd_per_hour: Prices, shape (offers,).
        loads: Machines kept busy by a whole bucket, shape (blocks, offers, buckets); infinity
            where the offer cannot serve it.
        machines: n of the last solution, shape (offers,).
        shares: x of the last solution, one per column, shape (columns,).
        columns: Block, offer and bucket of every column, shape (3, columns).
        objective_usd_per_hour: Cost of the last solution.
        unserved: Share of all buckets that no offer serves in the last solution; 0 if feasible.
        finite_loads: The same with 0 where the offer cannot serve the bucket.
        caps: Coefficients of n in the rows of the provider cap.
        cuts: In the order of their rows, after demand, capacity and caps.
        overspend: Whether money may be spent on nothing, to keep the caps.
        deadline: When solving is given up; None where it never is.
        kept_cuts: So many of the first cuts belong to every program made of this one.
    """

    def __init__(self, demand: Demand, *, overspend: bool = False) -> None:
        self.overspend = overspend
        self.usd_per_hour = demand.prices()
        self.loads = blocks_of(demand)
        self._blocks, self._offers, self._buckets = self.loads.shape
        self._costs = np.where(
            np.isfinite(self.loads), self.loads, np.inf
        ) * self.usd_per_hour.reshape(1, -1, 1)
        self.closed_form_usd_per_hour = float(self._costs[0].min(axis=0).sum())
        self._able: BoolArray = np.isfinite(self.loads)
        self.finite_loads = np.ascontiguousarray(np.where(self._able, self.loads, 0.0))
        self._open = self._able.copy()
        self.columns: IntArray = np.zeros((3, 0), dtype=np.int64)
        self._column_of: IntArray = np.full(self.loads.size, -1, dtype=np.int64)
        self.cuts: list[Cut] = []
        self.machines: FloatArray = np.zeros(self._offers)
        self.shares: FloatArray = np.zeros(0)
        self.objective_usd_per_hour = 0.0
        self.unserved = 0.0
        self._solver = quiet_solver()
        self._first_share = self._offers + self._blocks * self._buckets + int(overspend)
        self.caps = cap_rows(demand)
        self._solver.passModel(
            program_without_shares(
                demand,
                self.loads.shape,
                self.caps,
                self.closed_form_usd_per_hour,
                overspend=overspend,
            )
        )
        cheapest = np.argsort(self._costs, axis=1, kind="stable")[:, :FIRST_COLUMNS]
        first = np.zeros_like(self._able)
        np.put_along_axis(first, cheapest, values=True, axis=1)
        self._add_columns(first)
        self.deadline: Deadline | None = None
        for able in least_covers(self.loads):
            nothing = np.zeros(0)
            self.add_cut(
                Cut(
                    machines=able.astype(np.float64),
                    cells=nothing.astype(np.int64),
                    values=nothing,
                    at_least=1.0,
                )
            )
        self.kept_cuts = len(self.cuts)

    def _add_columns(self, wanted: BoolArray) -> int:
        new = np.argwhere(wanted & self._open).T
        count = int(new.shape[1])
        if count == 0:
            return 0
        block, offer, bucket = new
        self._open[block, offer, bucket] = False
        cells = self.cells(new)
        self._column_of[cells] = self.columns.shape[1] + np.arange(count)
        column = np.arange(count)
        capacity = self._blocks * self._buckets + block * self._offers + offer
        entries = [
            (column, block * self._buckets + bucket, np.ones(count)),
            (column, capacity, -self.loads[block, offer, bucket]),
            *self._cut_entries(cells),
        ]
        columns, rows, values = (np.concatenate(part) for part in zip(*entries, strict=True))
        order = np.argsort(columns, kind="stable")
        self._solver.addCols(
            count,
            np.zeros(count),
            np.zeros(count),
            np.full(count, INFINITY),
            len(order),
            np.searchsorted(columns[order], column).astype(np.int32),
            rows[order].astype(np.int32),
            values[order],
        )
        self.columns = np.concatenate([self.columns, new], axis=1)
        return count

    def _cut_entries(self, cells: IntArray) -> list[tuple[IntArray, IntArray, FloatArray]]:
        """Which entries have new columns of these cells in the rows of the cuts?"""
        if not self.cuts:
            return []
        position = np.full(self.loads.size, -1, dtype=np.int64)
        position[cells] = np.arange(len(cells))
        entries: list[tuple[IntArray, IntArray, FloatArray]] = []
        for row, cut in enumerate(self.cuts, start=self.first_cut_row):
            at = position[cut.cells]
            hit = np.flatnonzero(at >= 0)
            entries.append((at[hit], np.full(len(hit), row, dtype=np.int64), cut.values[hit]))
        return entries

    @property
    def spare_rows(self) -> IntArray:
        """Rows of the cuts that a solver which separates its own does not need."""
        rows: IntArray = np.arange(
            self.first_cut_row + self.kept_cuts, self.first_cut_row + len(self.cuts)
        )
        return rows

    @property
    def first_cut_row(self) -> int:
        """The row of the first cut."""
        count: int = self._blocks * (self._buckets + self._offers) + len(self.caps)
        return count

    def cells(self, columns: IntArray) -> IntArray:
        """Block, offer and bucket, shape (3, k), as indices into loads.ravel()."""
        flat: IntArray = (columns[0] * self._offers + columns[1]) * self._buckets + columns[2]
        return flat

    def _rents(self, duals: FloatArray, reduced: FloatArray, values: FloatArray) -> FloatArray:
        """Worth of a machine's time in every block, shape (blocks, offers).

        The duals of offers that nobody buys are not unique: the solver may say 0, and then all
        their shares would look cheap. Their reduced cost is added, up to the full price; this
        changes neither feasibility nor the value of the dual solution.
        """
        first = self._blocks * self._buckets
        rents = np.maximum(duals[first : first + self._blocks * self._offers], 0.0)
        rents = rents.reshape(self._blocks, self._offers)
        idle = values[: self._offers] < 1e-9
        spare = np.where(idle, np.maximum(reduced[: self._offers], 0.0), 0.0)
        usable = self._able.any(axis=2)
        repaired: FloatArray = rents + usable * (spare / np.maximum(usable.sum(axis=0), 1))
        return repaired

    def _price(self, solution: highspy.HighsSolution) -> int:
        """Add the columns that would make the solution cheaper; how many were there?"""
        duals = np.array(solution.row_dual)
        cells = self._blocks * self._buckets
        worth = duals[:cells].reshape(self._blocks, 1, self._buckets)
        rent = self._rents(duals, np.array(solution.col_dual), np.array(solution.col_value))
        saved = worth - rent.reshape(self._blocks, self._offers, 1) * self.finite_loads
        flat = saved.reshape(-1)
        for dual, cut in zip(duals[self.first_cut_row :], self.cuts, strict=True):
            if dual > 0.0:
                flat[cut.cells] += dual * cut.values
        good = self._open & (saved > 1e-7 * np.abs(worth) + 1e-12)
        if not good.any():
            return 0
        block, bucket = np.nonzero(good.any(axis=1))
        candidates = np.where(good, saved, -np.inf)[block, :, bucket]
        few = np.zeros_like(good)
        for _ in range(PRICED_COLUMNS):
            best = candidates.argmax(axis=1)
            few[block, best, bucket] = True
            candidates[np.arange(len(best)), best] = -np.inf
        return self._add_columns(good & few)

    def keeps_caps(self, machines: FloatArray) -> bool:
        """Do these machines keep every provider's share under the cap?"""
        return all(float(cap @ machines) <= 1e-9 for cap in self.caps)

    def add_columns_of(self, offers: BoolArray) -> None:
        """Price in every column of these offers, so that the program is complete for them."""
        self._add_columns(self._open & offers.reshape(1, -1, 1))

    def add_cells(self, cells: BoolArray) -> None:
        """Price in these shares, shape (blocks, offers, buckets)."""
        self._add_columns(self._open & cells)

    def columns_outside(self, cells: BoolArray) -> IntArray:
        """Columns of the program with shares that are not among these."""
        block, offer, bucket = self.columns
        columns: IntArray = np.flatnonzero(~cells[block, offer, bucket]) + self._first_share
        return columns

    def program(self) -> highspy.HighsLp:
        """A copy of the linear program with all cuts; its first columns are the machines."""
        return self._solver.getLp()

    def solve(self, *, price: bool = True) -> bool:
        """Solve to optimality.

        Args:
            price: Over all columns; otherwise over those priced in so far, which gives no bound.

        Returns:
            Whether all buckets can be served under the current bounds of n.

        Raises:
            TimeUp: The deadline struck first.
        """
        while True:
            if self._blocks >= MANY_BLOCKS:
                # From nothing the interior point method is ten times faster; then simplex goes on.
                begun = self._solver.getInfo().basis_validity != 0
                self._solver.setOptionValue("solver", "simplex" if begun else "ipm")
            if self.deadline is not None:
                # The solver counts the time of all its runs.
                until_s = self._solver.getRunTime() + self.deadline.grace_s()
                self._solver.setOptionValue("time_limit", until_s)
            self._solver.run()
            status = self._solver.getModelStatus()
            if status == highspy.HighsModelStatus.kTimeLimit:
                raise TimeUp
            if status == highspy.HighsModelStatus.kInfeasible:
                self.unserved = 1.0
                return False
            if status != highspy.HighsModelStatus.kOptimal:
                raise SolverError(f"HiGHS stopped with status {status}; please report the demand")
            solution = self._solver.getSolution()
            values = np.array(solution.col_value)
            # Also what is not yet the best may be rounded up when the time is over.
            self.machines = values[: self._offers]
            if not price or self._price(solution) == 0:
                break
        self.unserved = float(
            values[self.unserved_columns.start : self.unserved_columns.stop].sum()
        )
        self.shares = values[self._first_share :]
        self.objective_usd_per_hour = float(self._solver.getInfo().objective_function_value)
        return self.unserved <= 1e-7

    def lagrangian_prices(self) -> tuple[FloatArray, FloatArray]:
        """What the last solution pays for service, and what a machine costs with the caps' duals.

        Returns:
            USD/h per whole bucket, shape (blocks, buckets), none negative; USD/h per machine,
            shape (offers,).
        """
        duals = np.array(self._solver.getSolution().row_dual)
        cells = self._blocks * self._buckets
        worth = np.maximum(duals[:cells], 0.0).reshape(self._blocks, self._buckets)
        usd = self.usd_per_hour.copy()
        first = cells + self._blocks * self._offers
        for dual, cap in zip(duals[first : self.first_cut_row], self.caps, strict=True):
            usd -= min(float(dual), 0.0) * cap
        return worth, usd

    def add_cut(self, cut: Cut) -> None:
        """Demand this inequality from now on."""
        self.cuts.append(cut)
        offers = np.flatnonzero(cut.machines)
        columns = self._column_of[cut.cells]
        known = np.flatnonzero(columns >= 0)
        index = np.concatenate([offers, self._first_share + columns[known]]).astype(np.int32)
        value = np.concatenate([cut.machines[offers], cut.values[known]])
        self._solver.addRow(cut.at_least, INFINITY, len(index), index, value)

    def trim(self, reduced_usd: float) -> None:
        """Forget shares whose reduced cost is above this, and cuts that are slack.

        The last solution stays optimal. Shares are priced in again when they are needed.
        """
        solution = self._solver.getSolution()
        far = self.far_columns(reduced_usd)
        if len(far):
            self._solver.deleteCols(len(far), far.astype(np.int32))
            far = far - self._first_share
            block, offer, bucket = self.columns[:, far]
            self._open[block, offer, bucket] = True
            self.columns = np.delete(self.columns, far, axis=1)
            self.shares = np.delete(self.shares, far)
            cells = self.cells(self.columns)
            self._column_of[:] = -1
            self._column_of[cells] = np.arange(len(cells))
        activity = np.array(solution.row_value)[self.first_cut_row :]
        loose = [
            k
            for k, cut in enumerate(self.cuts)
            if k >= self.kept_cuts and activity[k] > cut.at_least + LOOSE
        ]
        if loose:
            rows = self.first_cut_row + np.array(loose, dtype=np.int32)
            self._solver.deleteRows(len(loose), rows.astype(np.int32))
            gone = set(loose)
            self.cuts = [cut for k, cut in enumerate(self.cuts) if k not in gone]

    def far_columns(self, reduced_usd: float) -> IntArray:
        """Columns of the program with idle shares whose reduced cost is above this."""
        costs = np.array(self._solver.getSolution().col_dual)[self._first_share :]
        far: IntArray = np.flatnonzero((costs > reduced_usd) & (self.shares < 1e-9))
        columns: IntArray = far + self._first_share
        return columns

    def add_cheapest(self, offers: BoolArray, count: int) -> None:
        """Price in the shares of every bucket that are cheapest at full rent among these."""
        costs = np.where(offers.reshape(1, -1, 1), self._costs, np.inf)
        cheapest = np.argsort(costs, axis=1, kind="stable")[:, :count]
        wanted = np.zeros_like(self._able)
        np.put_along_axis(wanted, cheapest, values=True, axis=1)
        self._add_columns(wanted & self._open & offers.reshape(1, -1, 1))

    def columns_of(self, offers: BoolArray) -> IntArray:
        """Columns of the program with the shares of these offers."""
        columns: IntArray = np.flatnonzero(offers[self.columns[1]]) + self._first_share
        return columns

    @property
    def unserved_columns(self) -> range:
        """Columns of the program that stand for shares which nobody serves."""
        return range(self._offers, self._offers + self._blocks * self._buckets)

    @property
    def overspend_columns(self) -> range:
        """Columns of the program that stand for money spent on nothing."""
        return range(self.unserved_columns.stop, self._first_share)

    def basic_machines(self) -> list[tuple[int, int]]:
        """Row of the basis and offer of every number of machines that is basic, by offer."""
        # The bindings' stubs leave these two calls out.
        found = self._solver.getBasicVariables()[1]  # type: ignore[attr-defined]
        basic: IntArray = np.array(found, dtype=np.int64)
        rows = np.flatnonzero((basic >= 0) & (basic < self._offers))
        return sorted(((int(r), int(basic[r])) for r in rows), key=lambda pair: pair[1])

    def row_multipliers(self, basis_row: int) -> FloatArray:
        """Which combination of rows gives this row of the simplex tableau?"""
        if self.deadline is not None:
            self.deadline.grace_s()
        found = self._solver.getBasisInverseRow(basis_row)[1]  # type: ignore[attr-defined]
        return np.array(found, dtype=np.float64)

    def cell_shares(self) -> FloatArray:
        """Shares of the last solution for every cell of loads.ravel()."""
        shares = np.zeros(self.loads.size)
        shares[self.cells(self.columns)] = self.shares
        return shares

    def bound_machines(self, offer: int, lower: float, upper: float) -> None:
        """Allow only lower <= n_offer <= upper from now on."""
        self._solver.changeColBounds(offer, lower, upper)
