"""The least that the API's framework can answer: what others are measured against."""

from fastapi import FastAPI

app = FastAPI()


@app.get("/empty")
def empty() -> dict[str, str]:
    """Nothing, as JSON."""
    return {}
