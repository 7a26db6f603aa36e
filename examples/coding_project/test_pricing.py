"""Tests of pricing; one of them fails."""

import unittest

from pricing import order_total, shipping, split_bill, unit_price


class PricingTest(unittest.TestCase):
    def test_one_piece_costs_its_price(self):
        self.assertEqual(unit_price(200, 1), 200)

    def test_nine_pieces_are_not_cheaper(self):
        self.assertEqual(unit_price(200, 9), 200)

    def test_ten_pieces_are_cheaper(self):
        self.assertEqual(unit_price(200, 10), 180)

    def test_many_pieces_are_cheaper(self):
        self.assertEqual(unit_price(250, 40), 225)

    def test_small_orders_pay_shipping(self):
        self.assertEqual(shipping(4999), 500)

    def test_large_orders_do_not(self):
        self.assertEqual(shipping(5000), 0)

    def test_an_order_is_goods_and_shipping(self):
        self.assertEqual(order_total(1000, 2), 2500)
        self.assertEqual(order_total(1000, 5), 5000)

    def test_shares_add_up(self):
        self.assertEqual(split_bill(1000, 3), [334, 333, 333])
        self.assertEqual(split_bill(1001, 3), [334, 334, 333])
        self.assertEqual(split_bill(900, 3), [300, 300, 300])


if __name__ == "__main__":
    unittest.main()
