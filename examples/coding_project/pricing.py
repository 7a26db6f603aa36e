"""Prices of a small shop, in cents."""


def unit_price(price, quantity):
    """Price of one piece: ten pieces or more are a tenth cheaper."""
    if quantity > 10:
        return price - price // 10
    return price


def shipping(total):
    """Shipping costs 5 euros, and nothing from 50 euros on."""
    if total >= 5000:
        return 0
    return 500


def order_total(price, quantity):
    """What an order costs, with shipping."""
    goods = unit_price(price, quantity) * quantity
    return goods + shipping(goods)


def split_bill(total, people):
    """Shares of a bill that add up to it; the first ones pay the odd cents."""
    share = total // people
    odd = total % people
    return [share + 1 if number < odd else share for number in range(people)]
