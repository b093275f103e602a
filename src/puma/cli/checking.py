"""`puma check`: whether fixed point holds for a model, before anybody deploys it."""

from __future__ import annotations
