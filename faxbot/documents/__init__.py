"""Documents: what an upload is and how many pages it has, and fax pages made of it.

No document is ever opened in the process that asks: a child process does it, with limits on memory,
time and what it may write (`process` is our end of it, `child` the other). `Checker` is for a web
process, `Renderer` for a worker.
"""

from __future__ import annotations

from faxbot.documents.checker import Checked, Checker, Limits
from faxbot.documents.process import RenderingFailed
from faxbot.documents.renderer import NICE_BEHIND, Renderer

__all__ = ["NICE_BEHIND", "Checked", "Checker", "Limits", "Renderer", "RenderingFailed"]
