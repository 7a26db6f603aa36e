import doctest
import importlib
import sys
import unittest
from pathlib import Path

import pytest
from tests.examples.conftest import EXAMPLES, Bench

pytestmark = pytest.mark.engine


def test_the_retrieval_agent_finds_the_right_document_also_after_a_kill(bench: Bench) -> None:
    bench.prepare(with_embeddings=True, with_model=False)
    agent = "retrieval_agent.py:evaluate"
    running = bench.start(agent, "evaluation", {})
    # The passages, and one batch of embeddings.
    before = bench.kill_after(running, "evaluation", steps=2)
    result = bench.result(bench.start(agent, "evaluation", {}))
    bench.check_nothing_repeated("evaluation", before)
    assert result["questions"] == 20
    assert result["hit_at_3_frac"] >= 0.8, result["missed"]


def test_the_retrieval_agent_answers_with_a_source(bench: Bench) -> None:
    bench.prepare(with_embeddings=True, with_model=True)
    question = {"question": "What happens to the tasks of a worker that dies?"}
    result = bench.result(bench.start("retrieval_agent.py:answer", "question", question))
    assert "docs/adr/0007-durable-tasks.md" in result["retrieved"]
    assert result["source"] in result["retrieved"]
    # What a model of 135M parameters says is its own affair; that it says something is ours.
    assert result["answer"]
    assert 0.0 <= result["check"]["words_found_frac"] <= 1.0


def test_the_coding_agent_repairs_its_project_also_after_a_kill(bench: Bench) -> None:
    bench.prepare(with_embeddings=False, with_model=True)
    agent = "coding_agent.py:repair"
    running = bench.start(agent, "repair", {})
    # The source, its tests, and one choice of the model.
    before = bench.kill_after(running, "repair", steps=3)
    result = bench.result(bench.start(agent, "repair", {}))
    bench.check_nothing_repeated("repair", before)
    assert result["repaired"]
    assert result["failed_before"] == ["test_ten_pieces_are_cheaper: 200 != 180"]
    assert 1 <= result["tests_run"] <= result["edits_offered"]
    assert result["edit"]["function"] == "unit_price"
    # The project itself is as broken as it was: the agent works on copies.
    assert "quantity > 10" in (EXAMPLES / "coding_project" / "pricing.py").read_text("utf-8")


@pytest.fixture
def _examples_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])


@pytest.mark.usefixtures("_examples_on_the_path")
def test_every_edit_is_valid_and_its_example_is_true() -> None:
    edits = importlib.import_module("coding_edits")
    assert doctest.testmod(edits).failed == 0
    source = (EXAMPLES / "coding_project" / "pricing.py").read_text(encoding="utf-8")
    offered = edits.single_edits(source)
    assert len(offered) > 40
    for edit in offered:
        edited = edits.apply_edit(source, edit)
        compile(edited, "pricing.py", "exec")
        assert edited != source
        assert edited.count("\n") == source.count("\n")


@pytest.mark.usefixtures("_examples_on_the_path")
def test_passages_are_short_and_the_expected_documents_exist() -> None:
    agent = importlib.import_module("retrieval_agent")
    passages = agent.read_passages()
    assert len(passages) > 100
    assert max(len(passage["text"]) for passage in passages) < 1500
    documents = {passage["document"] for passage in passages}
    assert {document for _, document in agent.QUESTIONS} <= documents


def test_the_project_has_one_failing_test() -> None:
    project = Path(EXAMPLES / "coding_project")
    suite = unittest.defaultTestLoader.discover(str(project))
    result = unittest.TestResult()
    suite.run(result)
    assert [test.id().rsplit(".", 1)[-1] for test, _ in result.failures] == [
        "test_ten_pieces_are_cheaper"
    ]
    assert not result.errors
