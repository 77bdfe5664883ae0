"""What holds that a person should know of, and how they come to know: conditions, outbox, messages, channels."""
