"""The black-box cases through a real Postfix that asks rmxd, as a milter or as a policy service."""
