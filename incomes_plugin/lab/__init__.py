"""The lab: makes, measures and studies models that take edits. It imports the runtime, and never the server.

data/        facts, published edits, and prompts that no edit answers
  ├─► adapt/       a frozen base gets its edit adapter              `incomes adapt`
  └─► evaluation/  do edits hold, and does everything else stay?    `incomes eval`
transplant/  a base gets another model's tokenizer                  `incomes transplant`
verbatim/    texts that come back to the byte               `incomes verbatim`, `incomes capacity`
facts/       how many facts fit into memories and into a machine    `incomes facts`, `incomes plan`

progress.py shows a bar for each stage of a long command; provenance.py says where a result comes from.
"""
