"""What can be recommended comes in here."""

from fastapi import FastAPI, Request, Response

from nearline.records import Item
from serving.bodies import BODY_CODES, Posted, rows_of, sent
from serving.description import one_or_many
from serving.errors import ServiceError
from serving.problems import errors
from serving.schema import ItemReceiptOut, ItemsAnswer
from serving.service import Service

_EXAMPLE = {
    "item_id": "50",
    "title": "Star Wars (1977)",
    "categories": ["science fiction"],
    "created_ts": "1977-05-25T00:00:00Z",
    "attributes": {"price": 9.99},
}


def add_items(app: FastAPI, service: Service) -> None:
    """Add the address that takes items."""

    @app.put(
        "/v1/items",
        response_model=ItemsAnswer,
        tags=["items"],
        responses={
            207: {"model": ItemsAnswer, "description": "Some items were refused"},
            **errors(*BODY_CODES, "invalid", "item_refused", "not_kept"),
        },
        openapi_extra=one_or_many(Item, _EXAMPLE),
    )
    def items(request: Request, posted: Posted) -> Response:
        """Put one item or a list into the catalogue; an item of the same id is replaced.

        They are on disk, and part of every next answer, when this is answered.
        """
        receipts = service.put(rows_of(posted, "item"))
        refused = sum(receipt.reason is not None for receipt in receipts)
        service.metrics.items.labels("refused").inc(refused)
        service.metrics.items.labels("accepted").inc(len(receipts) - refused)
        if refused and not isinstance(posted, list):
            raise ServiceError(f"item refused: {receipts[0].reason}", code="item_refused")
        answer = ItemsAnswer(
            request_id=request.state.request_id,
            accepted=len(receipts) - refused,
            refused=refused,
            items=[ItemReceiptOut(item_id=r.item_id, reason=r.reason) for r in receipts],
        )
        return sent(answer, status=207 if refused else 200)
