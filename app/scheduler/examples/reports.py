"""A report from raw sales: work for the processor, and a result that somebody reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from celery import shared_task

__all__ = ["sales_report"]


@shared_task(name="reports.sales")
def sales_report(sales: Sequence[Sequence[Any]], top: int = 3) -> dict[str, Any]:
    """Sum up sales, given as (product, quantity, price as text), and name the best sellers."""
    revenue: Counter[str] = Counter()
    total = Decimal(0)
    for number, (product, quantity, price) in enumerate(sales, 1):
        try:
            amount = Decimal(price) * quantity
        except (InvalidOperation, TypeError) as exc:
            raise ValueError(f"Sale {number} has no usable price: {price!r}.") from exc
        total += amount
        revenue[product] += int(amount * 100)
    return {
        "sales": len(sales),
        "total": f"{total:.2f}",
        "best": [[product, f"{cents / 100:.2f}"] for product, cents in revenue.most_common(top)],
    }
