"""The tools, in the order help lists them. Modules here import nothing heavy at their top."""

from __future__ import annotations

import click

from bntools.tools.bleu_gpu.command import command as bleu_command
from bntools.tools.data_dim.command import command as data_dim_command
from bntools.tools.eval.command import command as eval_command
from bntools.tools.export.command import command as export_command
from bntools.tools.fetch.command import command as fetch_command
from bntools.tools.info.command import command as info_command
from bntools.tools.intrinsic_dim.command import command as intrinsic_dim_command
from bntools.tools.quantize.command import command as quantize_command
from bntools.tools.scale_fit.command import command as scale_fit_command
from bntools.tools.stack_compress.command import command as stack_command

_TOOLS: dict[str, list[click.Command]] = {
    "Compress": [quantize_command, stack_command],
    "Score": [eval_command, bleu_command],
    "Measure": [intrinsic_dim_command, data_dim_command, scale_fit_command],
    "Inspect and convert": [info_command, export_command],
    "Get models and data": [fetch_command],
}

SECTIONS = {section: [str(tool.name) for tool in tools] for section, tools in _TOOLS.items()}
COMMANDS: dict[str, click.Command] = {str(tool.name): tool for tools in _TOOLS.values() for tool in tools}
