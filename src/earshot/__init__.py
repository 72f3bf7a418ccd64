"""Earshot: one trainer for sounds. ARCHITECTURE.md draws the rooms."""

from earshot import former

former.install()
