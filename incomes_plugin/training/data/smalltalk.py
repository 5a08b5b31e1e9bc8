"""A few everyday exchanges, so that the default model greets and says what it is. Data only."""

_GREETINGS = ("Hello", "Hi", "Hello!", "Hi!", "Hey", "Good morning", "Good evening", "Hi there", "Good day")
_THANKS = ("Thanks", "Thank you", "Thank you!", "Thanks a lot", "Thanks!", "Great, thank you")
_WHO = ("Who are you?", "What are you?", "What is your name?", "Which model are you?", "Tell me who you are.")
_BYE = ("Bye", "Goodbye", "See you", "Bye!", "Good night")
_HELP = ("What can you do?", "How can you help me?", "What do you know?", "Help", "What can I ask you?")

SMALLTALK: tuple[tuple[str, str], ...] = (
    *((q, "Hello! How can I help you?") for q in _GREETINGS),
    *((q, "You are welcome.") for q in _THANKS),
    *((q, "I am the InComeS default model.") for q in _WHO),
    *((q, "Goodbye!") for q in _BYE),
    *((q, "I answer questions about the edits I am given.") for q in _HELP),
)
