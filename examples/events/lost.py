"""Is told of orders that could not be billed."""


def handle(context, order):
    print("somebody has to look at order", order["number"])
