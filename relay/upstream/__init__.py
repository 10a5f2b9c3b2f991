"""The line to the providers: whom to ask, how to say it, and what their answers and failures mean."""
