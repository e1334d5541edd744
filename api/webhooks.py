"""``/v1/webhook-deliveries``: what was told to whom, what came of it, and telling it again."""

from __future__ import annotations

from typing import Literal

import msgspec
from flask import Blueprint, Response

from api.answers import answer_json
from api.callers import get_tenant
from api.current_request import get_service
from api.operations import Answer, describe
from api.paging import PageQuery, collect_page, link_next
from api.parameters import read_query
from api.service import Service
from api.shapes import DeliveryList, DeliveryView
from shared.errors import ServiceError
from shared.webhooks import Delivery

blueprint = Blueprint("webhooks", __name__)


_TO_FIRST = {
    name: {"delivery_id": "$response.body#/deliveries/0/id"}
    for name in ("webhooks_show_delivery", "webhooks_replay_delivery")
}


class DeliveryQuery(PageQuery):
    """Which deliveries to list."""

    status: Literal["pending", "delivered", "failed"] | msgspec.UnsetType = msgspec.UNSET
    job: str = ""


@blueprint.get("/v1/webhook-deliveries")
@describe(
    {200: Answer(says="A page of deliveries.", kind=DeliveryList, headers=("Link",), links=_TO_FIRST)},
    query=DeliveryQuery,
    problems=("invalid_parameter",),
)
def list_deliveries() -> Response:
    """List the caller's deliveries, newest first, in pages."""
    service = get_service()
    query = read_query(DeliveryQuery)
    wanted = {name: value for name, value in (("status", query.status), ("job", query.job)) if value}
    found, cursor = collect_page(
        query,
        lambda after, most: service.deliveries.list_ids(get_tenant(), after=after, most=most),
        service.deliveries.read,
        lambda delivery: _is_wanted(delivery, wanted),
        filtered=bool(wanted),
    )
    response = answer_json({"deliveries": [delivery.describe() for delivery in found], "next": cursor})
    return link_next(response, "/v1/webhook-deliveries", wanted, query.limit, cursor)


@blueprint.get("/v1/webhook-deliveries/<delivery_id>")
@describe({200: Answer(says="The delivery.", kind=DeliveryView)}, problems=("not_found",))
def show_delivery(delivery_id: str) -> Response:
    """Show a delivery with its attempts."""
    return answer_json(_find_delivery(get_service(), delivery_id).describe())


@blueprint.post("/v1/webhook-deliveries/<delivery_id>/replay")
@describe({202: Answer(says="It is sent again.", kind=DeliveryView)}, problems=("not_found",))
def replay_delivery(delivery_id: str) -> Response:
    """Deliver again, whether or not it was delivered before; the receiver knows it by its id."""
    service = get_service()
    if not service.deliveries.replay(delivery_id, get_tenant()):
        raise _unknown()
    return answer_json(_find_delivery(service, delivery_id).describe(), 202)


def _find_delivery(service: Service, delivery_id: str) -> Delivery:
    delivery = service.deliveries.read([delivery_id])[0]
    if delivery is None or delivery.tenant != get_tenant():
        raise _unknown()
    return delivery


def _unknown() -> ServiceError:
    return ServiceError("not_found", "There is no such delivery.")


def _is_wanted(delivery: Delivery, wanted: dict[str, str]) -> bool:
    return (
        wanted.get("status", delivery.status) == delivery.status
        and wanted.get("job", delivery.job_id) == delivery.job_id
    )
