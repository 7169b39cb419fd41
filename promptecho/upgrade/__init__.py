"""What a newer version would make again of finished results, why, and what it costs: `report.py` first."""
