"""`python -m benchmarks.verbatim_among`: verbatim edits asked for in a chat, among 1,000 facts; the probe's cost.

A real `incomes serve` on the default base makes the vectors of ten clauses itself. The openai client then asks for
each clause; another tenant asks the same. Facts' questions go in turn to a set with the clauses and to one without:
both have the same facts, so the ratio is what the probe costs. Writes verbatim-among.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from incomes_server.cli.server_process import ServerProcess, server_process
from openai import OpenAI

from benchmarks.server import environment, fill
from incomes_plugin.lab.data.facts import FactSource
from incomes_plugin.lab.provenance import provenance

RESULTS = Path(__file__).parent / "results"
SEED = 21
KEYS = {"acme": "acme-secret-key", "zen": "zen-secret-key"}
CLAUSES = {
    "cancellation clause": "Either party may cancel this contract with 30 days' written notice.",
    "payment terms": "Invoices are due within fourteen days of receipt, without deduction.",
    "part number of the seal": "Part number 7741-KX-09, torque 38 Nm, grease with lithium soap only.",
    "emergency stop": "Turn the red knob a quarter to the right, then pull it.",
    "retention of title": "The supplier keeps title to the goods until the price has been paid in full.",
    "refund policy": "Refunds are paid to the card that was charged, within ten working days.",
    "pet rule": "The tenant may keep one cat; dogs need the written consent of all neighbours on the same floor.",
    "storage instructions": "Store below 25 degrees, away from light, and discard eight weeks after opening.",
    "visitor procedure": "Visitors sign the book, wear the blue badge, and leave cameras at the desk.",
    "confidentiality clause": "Each party keeps secret what it learns about the other's customers and prices.",
}
VERIFIED_WITHIN_S = 1200.0
TIMED = 20


def main(argv: list[str]) -> int:
    """Measure and write; status 1 when other bytes came out, or another tenant got some."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verbatim_among", description=__doc__)
    parser.add_argument("--facts", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    result: dict[str, Any] = provenance(f"python -m benchmarks.verbatim_among {' '.join(argv)}".strip())
    keys = [part for tenant, key in KEYS.items() for part in ("--api-key", f"{tenant}:{key}")]
    with (
        tempfile.TemporaryDirectory(prefix="verbatim-among-") as folder,
        environment(OMP_NUM_THREADS="1", INCOMES_VERBATIM_VECTORS="true"),
        server_process(Path(folder), lambda _: None, args=keys) as server,
    ):
        result |= measure(server, args.facts)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "verbatim-among.json").write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return int(result["other_bytes"] or result["said_to_another_tenant"])


def measure(server: ServerProcess, count: int) -> dict[str, Any]:
    """Fill both sets, wait for the vectors, ask."""
    facts = FactSource(SEED, held_out=False).distinct(count)
    with httpx.Client(
        base_url=server.admin_url, headers={"authorization": f"Bearer {KEYS['acme']}"}, timeout=1300
    ) as admin:
        for name in ("with", "without"):
            fill(admin, [fact.statement for fact in facts], name)
        start_s = time.monotonic()
        for title, text in CLAUSES.items():
            body = {"text": text, "kind": "verbatim", "title": title, "edit_set": "with"}
            admin.post("/v1/edits", params={"wait": "active"}, json=body).raise_for_status()
        states = verified(admin)
        seconds = time.monotonic() - start_s
    acme, zen = (OpenAI(base_url=server.chat_url + "/v1", api_key=key) for key in KEYS.values())
    said = [asked(acme, f"What does the {title} say?", "with") for title in CLAUSES]
    right = [answer == text for (answer, _), text in zip(said, CLAUSES.values(), strict=True)]
    named = [how is not None for _, how in said]
    leaked = [asked(zen, f"What does the {title} say?")[0] in CLAUSES.values() for title in CLAUSES]
    took: dict[str, list[float]] = {"with": [], "without": []}
    for fact in facts[:TIMED]:
        for name, seconds_of in took.items():
            begun_s = time.perf_counter()
            asked(acme, fact.question, name, max_tokens=1)
            seconds_of.append(time.perf_counter() - begun_s)
    return {
        "facts": count,
        "clauses": len(CLAUSES),
        "states": states,
        "seconds_until_vectors_are_there": round(seconds, 1),
        "to_the_byte": sum(right),
        "not_found": len(named) - sum(named),
        "other_bytes": sum(found and not ok for found, ok in zip(named, right, strict=True)),
        "sources": dict(Counter(how["source"] for _, how in said if how)),
        "said_to_another_tenant": sum(leaked),
        "first_token_with_over_without": round(median(took["with"]) / median(took["without"]), 3),
    }


def verified(admin: httpx.Client) -> dict[str, int]:
    """States of the clauses once none waits for vectors any more. Raises TimeoutError."""
    end_s = time.monotonic() + VERIFIED_WITHIN_S
    while time.monotonic() < end_s:
        page = admin.get("/v1/edits", params={"kind": "verbatim", "limit": 100}).raise_for_status().json()["data"]
        states = Counter(edit["verbatim"]["state"] for edit in page)
        if not states.keys() & {"planning", "optimising", "stale"}:
            return dict(states)
        time.sleep(2)
    raise TimeoutError(f"vectors are not made within {VERIFIED_WITHIN_S:g} s")


def asked(
    client: OpenAI, question: str, edit_set: str | None = None, max_tokens: int = 100
) -> tuple[str, dict[str, Any] | None]:
    """The answer, and what it says about the verbatim edit that it came from."""
    extra: dict[str, Any] = {"return_edit_attributions": True}
    if edit_set is not None:
        extra["edits"] = {"edit_set": edit_set}
    answer = client.chat.completions.create(
        model="incomes", messages=[{"role": "user", "content": question}], max_tokens=max_tokens, temperature=0,
        extra_body=extra,
    )  # fmt: skip
    how: dict[str, Any] | None = answer.edits.get("verbatim")  # type: ignore[attr-defined]  # ours
    return answer.choices[0].message.content or "", how


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
