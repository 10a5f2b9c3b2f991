"""The quirks that an upstream may have, and a sentence about each, which the shipped file shows.

Owns their names as settings. What each does is `relay.upstream.quirks`'.
"""

QUIRKS = {
    "developer_as_system": "The role `developer` is sent as `system`.",
    "reasoning_content_required": "Assistant turns with tool calls get a `reasoning_content` if theirs was lost.",
    "tool_choice_auto": "A tool that is demanded is asked for in words, `tool_choice` sent as `auto`.",
    "thinking_tool_choice_auto": "The same, unless the call switches thinking off.",
    "temperature_one": "`temperature`, `top_p` and penalties are not sent: the provider has fixed them.",
    "temperature_above_zero": "A `temperature` of 0 is sent as 0.01.",
    "top_p_below_one": "A `top_p` of 1 or more is sent as 0.99.",
    "text_content_only": "Content that is a list of texts is sent as one string.",
    "plain_without_thinking": "Calls without a stream are sent with `enable_thinking` false.",
    "enable_thinking": "`thinking` that is switched off is sent as `enable_thinking` false.",
    "effort_up_to_high": "An effort above `high` is sent as `high`.",
    "effort_high_or_max": "An effort is sent as `high` or `max`; in chat `none` as thinking switched off.",
    "untyped_tools": "To a messages address, tools of the type `custom` are sent without a type.",
    "known_fields_only": "To a responses address, fields that OpenAI alone knows, such as `metadata`, are not sent.",
    "plain_as_plain": "A long plain call is not asked for as a stream: the provider has none, or none worth it.",
    "no_stream_options": "`stream_options` is not sent: usage comes without it.",
    "spark_chunks": "Tool calls are asked for in the usual list, which Spark gives only on request.",
    "max_tokens_only": "`max_completion_tokens` is sent as `max_tokens`.",
    "max_completion_tokens_only": "`max_tokens` is sent as `max_completion_tokens`.",
    "json_object_only": "A JSON schema is sent as an instruction beside `json_object`.",
    "prefill_partial": "An assistant's turn at the end is marked as `partial`, to be continued.",
    "prefill_prefix": "The same with `prefix`, and such a request goes below /beta.",
}
