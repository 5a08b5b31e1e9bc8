"""serving.json -> serving.md: the same figures as tables, for people."""

from __future__ import annotations

from typing import Any


def markdown(result: dict[str, Any]) -> str:
    """The whole report; sections that were not run are left out."""
    parts = [header(result)]
    parts += [throughput(result["throughput"])] if "throughput" in result else []
    parts += [bulk(result["bulk"])] if "bulk" in result else []
    parts += [rivals(result["rivals"])] if "rivals" in result else []
    parts += [server(result["server"])] if "server" in result else []
    return "\n\n".join(parts) + "\n"


def header(result: dict[str, Any]) -> str:
    """Where the figures come from."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        "# Serving benchmark",
        "",
        f"`{result['command']}` on {result['date']}, commit {result['commit']}.",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB;",
        f"load before the run {machine['load_before']}.",
        f"{versions}.",
        "",
        "Medians; in brackets the smallest and largest run. A ratio compares runs of one round, neighbours in time.",
    ]
    if result["quick"]:
        lines += ["", "**Quick run: proves that the harness works, says nothing about speed.**"]
    return "\n".join(lines)


def throughput(section: dict[str, Any]) -> str:
    """One row per variant."""
    rows = [
        [
            label(column),
            spread(column["output_tokens_per_s"], "{:.1f}"),
            spread(column["throughput_ratio"]),
            spread(column["decoding_ratio"]),
            spread(column["ttft_ms"], "{:.0f}"),
            spread(column["ttft_ratio"]),
        ]
        for column in section["variants"].values()
    ]
    work = section["workload"]
    text = (
        f"{section['base']}, bfloat16, one core. Throughput: {work['batch']} requests of {work['prompt_tokens']} "
        f"prompt tokens and {work['output_tokens']} output tokens; decoding: after the last one's first token. "
        f"Time to first token: one prompt of {work['ttft_prompt_tokens']} tokens, at the engine. "
        f"A token of an edit takes {section['bytes_per_token']:,} bytes. Where every request asks for one edit, these "
        f"are made-up facts, and the prompt is a text with a question about one of them; all else is as it is served. "
        f"Other rows have random edits of {work['edit_tokens']} tokens and a threshold that all of them pass, of which "
        f"a request may read {section['most_picks']}, or none."
    )
    head = ["", "output tokens/s", "ratio to stock", "decoding alone, ratio", "first token ms", "ratio to stock"]
    return f"## Throughput and time to first token\n\n{text}\n\n{table(head, rows)}"


def label(column: dict[str, Any]) -> str:
    """What runs, and whether requests read."""
    if column["edits"] is None:
        return "stock vLLM"
    if not column["edits"]:
        return "0 edits"
    reads = {
        "none": "no request reads any",
        "asked": "every request asks for one",
        "most": "every one reads as many as it may",
    }
    return f"{column['edits']:,} edits, {reads[column['reads']]}"


def bulk(section: dict[str, Any]) -> str:
    """Capture against prefill."""
    text = f"Edits of {section['tokens_per_edit']} tokens, same base, {section['tokens_per_run']:,} tokens a run."
    row = [
        spread(section["edits_per_s"], "{:.1f}"),
        spread(section["capture_tokens_per_s"], "{:.0f}"),
        spread(section["prefill_tokens_per_s"], "{:.0f}"),
        spread(section["ratio_to_prefill"]),
    ]
    head = ["edits/s", "capture tokens/s", "stock prefill tokens/s", "ratio to prefill"]
    return f"## Bulk compression\n\n{text}\n\n{table(head, [row])}"


def rivals(section: dict[str, Any]) -> str:
    """One row per number of edits and way."""
    rows = [
        [f"{int(edits):,}", name, spread(way["first_token_ms"], "{:.0f}"), spread(way["ratio_to_ours"])]
        for edits, ways in section.items()
        for name, way in ways.items()
    ]
    text = (
        "A question about one of N edits, by a lone caller: the search, where there is one, and the first token. "
        "Rivals put what they find in front of the question, on stock vLLM."
    )
    return f"## Beside retrieval\n\n{text}\n\n{table(['edits', '', 'first token ms', 'ratio to ours'], rows)}"


def server(section: dict[str, Any]) -> str:
    """Start, latency, import, bytes."""
    rows = [
        [f"{int(n):,}", f"{v['p50']:.0f}", f"{v['p95']:.0f}", f"{v['max']:.0f}", str(v["adds"])]
        for n, v in section["add_to_active_ms"].items()
    ]
    warm = spread(section["start_warm_s"], "{:.1f}")
    imported = f"{section['import_edits_per_s']} edits/s ({section['imported_edits']:,} edits)"
    facts = [
        f"- start to ready: cold {section['start_cold_s']} s (empty vLLM cache), warm {warm} s",
        f"- import over HTTP until active: {imported}",
        f"- bytes per edit: {section['bytes_per_edit']:,} for {section['tokens_per_edit']} tokens",
        f"- p95 with the largest set, as a ratio to the smallest: {section['p95_ratio_largest_to_smallest']}",
    ]
    head = ["edits present", "p50 ms", "p95 ms", "max ms", "adds"]
    title = "## The server, default model\n\nAdd to active over HTTP (`POST /v1/edits?wait=active`):"
    return f"{title}\n\n{table(head, rows)}\n\n" + "\n".join(facts)


def spread(value: dict[str, float], form: str = "{:.3f}") -> str:
    """`median [min–max]`."""
    return f"{form.format(value['median'])} [{form.format(value['min'])}–{form.format(value['max'])}]"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
