"""From decoded records to what the vector stores hold: plan, embed, guarded write, report. It knows no store and no source."""
