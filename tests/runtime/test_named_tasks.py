from hypothesis import given
from hypothesis import strategies as st

from steelyard.runtime.named_tasks import NamedTasks


@given(
    acts=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["begin", "end", "look"])), max_size=60
    )
)
def test_who_is_silent_is_found_once_and_who_asks_is_not(acts: list[tuple[str, str]]) -> None:
    named = NamedTasks()
    under_way = dict.fromkeys("abc", 0)
    ended_s: dict[str, float] = {}
    for at, (name, act) in enumerate(acts):
        now_s = float(at)
        if act == "begin":
            named.begin(name, told=True)
            under_way[name] += 1
        elif act == "end" and under_way[name]:
            named.end(name, now_s, "succeeded", None)
            under_way[name] -= 1
            ended_s[name] = now_s
        elif act == "look":
            silent = {one.task_id for one in named.silent_since(now_s - 5.0)}
            wanted = {
                one for one, t_s in ended_s.items() if not under_way[one] and t_s <= now_s - 5.0
            }
            assert silent == wanted
            for one in silent:
                del ended_s[one]


def test_an_end_of_a_task_that_no_request_opened_says_nothing() -> None:
    named = NamedTasks()
    named.end("unknown", 1.0, "failed", None)
    assert len(named) == 0
    assert named.silent_since(9.0) == []
