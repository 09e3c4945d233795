"""The permissions of an API key in words."""

PERMISSION_WORDS = {
    "user_read": "Read the account: its SSH keys, variables and API keys. keysync needs only this.",
    "user_write": "Change the account: add, edit and delete SSH keys and API keys.",
    "instance_read": "See instances and the keys attached to them.",
    "instance_write": "Change instances: attach and detach keys.",
    "misc": "Search offers and use what fits nowhere else.",
    "billing_read": "See invoices and charges.",
    "billing_write": "Change payment.",
    "machine_read": "See hosted machines.",
    "machine_write": "Change hosted machines.",
    "team_read": "See team members and roles.",
    "team_write": "Change team members and roles.",
}
