"""Figures that show X-rays; `stored` reads what a run stored for them, `drawing` shows it."""
