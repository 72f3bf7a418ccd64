"""What benchmarks/results.py writes: one entry a figure, and a processor that can be told from another of its name."""

import json

import results

CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t: fpu avx2 fma avx512f avx512_vnni amx_int8_other

processor\t: 1
cpu family\t: 26
model\t\t: 2
model name\t: another
flags\t\t: fpu
"""


def test_a_processor_has_its_generation_and_vector_units():
    assert results.processor(CPUINFO) == "AMD EPYC family 25 model 17 (avx2 avx512f avx512_vnni)"
    assert results.processor("model name\t: Cortex\n") == "Cortex"
    assert results.processor("processor\t: 0\nFeatures\t: fp asimd\n") == ""
    assert "," not in results.machine().split(" cores")[0].rsplit(",", 1)[0], "what comes first is the processor"


def test_figures_are_appended(tmp_path):
    path = tmp_path / "results.json"
    results.record("one", 1.5, "times", "python a.py", path)
    results.record("one", 1.6, "times", "python a.py", path)
    found = json.loads(path.read_text())
    assert [(e["name"], e["value"], e["unit"], e["command"]) for e in found] == [
        ("one", 1.5, "times", "python a.py"), ("one", 1.6, "times", "python a.py")
    ]  # fmt: skip
    assert {e["machine"] for e in found} == {results.machine()}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]
