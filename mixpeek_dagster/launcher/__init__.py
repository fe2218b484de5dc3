"""How runs become processes: forked from one that has imported everything, instead of an interpreter started for each.

`dagster.yaml` names the launcher, so every process that opens the instance imports this: it imports Dagster and nothing of ours.
"""

from mixpeek_dagster.launcher.launcher import ForkRunLauncher as ForkRunLauncher
