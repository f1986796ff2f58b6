#!/usr/bin/env python3
"""Conversations as transformers 5.23 renders them: rewrites tests/text/chat_goldens.json.

    /work/venv-hf/bin/python tests/text/make_chat_goldens.py

The templates are written for this test, in the manner and with the constructs of the families' own: ChatML with tools
and reasoning, tools as XML, headers with dates, alternating turns in brackets. `expected` is missing where the
template refuses the conversation.
"""

import json
import pathlib

from transformers import PreTrainedTokenizerFast
from tokenizers import Tokenizer, models

CHATML_REASONING = r"""
{%- macro show(content) -%}
  {%- if content is string -%}{{ content }}
  {%- elif content is iterable and content is not mapping -%}
    {%- for part in content -%}{%- if part.type == 'text' or 'text' in part -%}{{ part.text }}{%- else -%}{{ raise_exception('cannot show ' ~ part.type) }}{%- endif -%}{%- endfor -%}
  {%- elif content is none or content is undefined -%}
  {%- else -%}{{ raise_exception('Unexpected content') }}{%- endif -%}
{%- endmacro -%}
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- show(messages[0].content) + '\n\n' }}{% endif %}
    {{- "Functions are listed in <tools>:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}{{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools>\nAnswer with {\"name\": .., \"arguments\": ..}.<|im_end|>\n" }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + show(messages[0].content) + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and not (message.content is string and message.content.startswith('<reply>') and message.content.endswith('</reply>')) %}
        {%- set ns.searching = false %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = show(message.content)|trim %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}{%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {%- if message.tool_calls is defined and message.tool_calls is iterable and message.tool_calls is not mapping %}
            {%- for call in message.tool_calls %}
                {%- if (loop.first and content) or not loop.first %}{{- '\n' }}{% endif %}
                {%- if call.function is defined %}{%- set call = call.function %}{%- endif %}
                {{- '<call>\n{"name": "' ~ call.name ~ '", "arguments": ' }}
                {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
                {{- '}\n</call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or loop.previtem.role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<reply>\n' + content + '\n</reply>' }}
        {%- if loop.last or loop.nextitem.role != "tool" %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- elif message.role != "system" %}{{- raise_exception('Unexpected role ' ~ message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}
"""

CHATML_XML = r"""{{ bos_token }}
{%- macro field(name, value) %}
{%- if value is mapping or (value is sequence and value is not string) %}
{{- '\n<' ~ name ~ '>' ~ (value | tojson | safe) ~ '</' ~ name ~ '>' }}
{%- else %}{{- '\n<' ~ name ~ '>' ~ (value | string) ~ '</' ~ name ~ '>' }}{% endif %}
{%- endmacro %}
{%- set system = namespace(text='') %}
{% for m in messages if m.role == 'system' %}{% set system.text = system.text ~ m.content %}{% endfor %}
{%- if tools is iterable and tools | length > 0 %}
<|im_start|>system
{{ system.text | default('You help.', true) }}
<tools>
{%- for tool in tools %}
  {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
  {{- "\n<function>\n<name>" ~ tool.name ~ "</name>" }}
  {%- if tool.description is defined %}{{- '\n<description>' ~ (tool.description | trim) ~ '</description>' }}{%- endif %}
  {%- if tool.parameters is defined and tool.parameters.properties is defined %}
    {%- for name, fields in tool.parameters.properties | items %}
      {{- '\n<parameter>' }}{{ field('name', name) }}
      {%- for key in fields.keys() | reject('in', ['name', 'type', 'enum']) %}{{ field(key | replace('-', '_') | replace(' ', '_'), fields[key]) }}{% endfor %}
      {%- if fields.enum is defined %}{{- '\n<one_of>' ~ fields.enum | map('tojson') | join(', ') ~ '</one_of>' }}{% endif %}
      {{- '\n</parameter>' }}
    {%- endfor %}
  {%- endif %}
  {{- '\n</function>' }}
{%- endfor %}
</tools><|im_end|>
{% endif %}
{% for message in messages | rejectattr('role', 'equalto', 'system') %}
<|im_start|>{{ message.role }}
{% if message.tool_calls %}
{% generation %}
{% for call in message.tool_calls %}
<call={{ call.function.name }}>
{% for name, value in (call.function.arguments | default({}, true)).items() | sort %}
<{{ name }}>{{ value if value is string else value | tojson }}</{{ name }}>
{% endfor %}
</call>
{% endfor %}
{% endgeneration %}
{% elif message.content is string %}
{{ message.content }}<|im_end|>
{% else %}
{{ message.content | selectattr('text', 'defined') | map(attribute='text') | join(' ') }}<|im_end|>
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""

HEADERS = r"""{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools_in_user_message is defined %}{%- set tools_in_user_message = true %}{%- endif %}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|head|>system<|/head|>\n\n" }}
{%- if tools is not none %}{{- "Environment: code\n" }}{%- endif %}
{{- "Today: " + date_string + "\n\n" }}{{- system_message }}{{- "<|eot|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
    {%- else %}{{- raise_exception("There is no first user message to put the tools in!") }}{%- endif %}
    {{- '<|head|>user<|/head|>\n\n' -}}
    {%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\n\n" }}{%- endfor %}
    {{- first_user_message + "<|eot|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\n\n' + message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}{{- raise_exception("Only one call at a time!") }}{%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|head|>assistant<|/head|>\n\n' -}}{{- '{"name": "' + call.name + '", ' }}{{- '"parameters": ' }}{{- call.arguments | tojson }}{{- "}" }}{{- "<|eot|>" }}
    {%- else %}
        {{- "<|head|>ipython<|/head|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|/head|>\n\n' }}{%- endif %}
"""

BRACKETS = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}{%- set rest = messages[1:] %}
{%- else %}{%- set rest = messages %}{%- endif %}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for m in rest %}
    {%- if not (m.role == "tool" or m.tool_calls is defined) %}
        {%- if (m["role"] == "user") != (ns.index % 2 == 0) %}{{- raise_exception("roles must alternate") }}{%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for m in rest %}
    {%- if m["role"] == "user" %}
        {%- if tools is not none and (m == users[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{- "[INST] " + system + "\n\n" + m["content"] + "[/INST]" }}{%- else %}{{- "[INST] " + m["content"] + "[/INST]" }}{%- endif %}
    {%- elif m.tool_calls is defined and m.tool_calls is not none %}
        {{- "[CALLS] [" }}
        {%- for call in m.tool_calls %}
            {%- set out = call.function|tojson %}{{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}{{- raise_exception("ids are alphanumeric, of length 9!") }}{%- endif %}
            {{- ', "id": "' + call.id + '"}' }}{{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif m["role"] == "assistant" %}{{- " " + m["content"]|trim + eos_token }}
    {%- elif m["role"] == "tool" %}{{- '[RESULTS] {"content": ' + m.content|string + ', "id": "' + m.tool_call_id|default('none') + '"}[/RESULTS]' }}
    {%- else %}{{- raise_exception("Only user, assistant and tool roles are supported") }}{%- endif %}
{%- endfor %}
"""

TEMPLATES = {"chatml_reasoning": CHATML_REASONING, "chatml_xml": CHATML_XML, "headers": HEADERS, "brackets": BRACKETS}

TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": " Weather of a place, in °C.\nNow or \"later\" <soon> & 'then'. ", "parameters": {
        "type": "object", "required": ["place"], "properties": {
            "place": {"type": "object", "description": "Where", "properties": {"lat": {"type": "number", "minimum": -90.0}, "lon": {"type": "number"}}},
            "unit": {"type": "string", "enum": ["C", "F", None, 1.5], "default": "C"}, "days": {"type": "array", "items": {"type": "integer"}, "max-items": 7}}}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}, "return": {"type": "string"}}},
]
CALL = [{"type": "function", "id": "abcdefgh1", "function": {"name": "weather", "arguments": {"place": {"lat": 52.5, "lon": -0.0}, "days": [1, 2], "unit": None}}}]
TWO = CALL + [{"type": "function", "id": "abcdefgh2", "function": {"name": "now", "arguments": {}}}]
U = lambda text: {"role": "user", "content": text}
A = lambda text, **more: {"role": "assistant", "content": text, **more}
S = lambda text: {"role": "system", "content": text}
T = lambda text: {"role": "tool", "content": text, "tool_call_id": "abcdefgh1"}
CONVERSATIONS = {
    "one": {"messages": [U("Hi")]},
    "system": {"messages": [S(" You are terse. \n"), U("Grüße, 東京 🐈‍⬛!\n\n")]},
    "turns": {"messages": [S("s"), U("a"), A(" b "), U("c\nd"), A("e"), U("f")]},
    "ends_with_reply": {"messages": [U("a"), A("b\n")]},
    "empty": {"messages": [U(""), A(""), U(" ")]},
    "tools": {"messages": [S("Use tools."), U("Weather?")], "tools": TOOLS},
    "tools_no_system": {"messages": [U("Weather?")], "tools": TOOLS},
    "call": {"messages": [U("Weather?"), A(None, tool_calls=CALL), T("{\"t\": 3.5}")], "tools": TOOLS},
    "two_calls": {"messages": [S("x"), U("Weather?"), A("I look.", tool_calls=TWO), T("3"), T("noon"), A("3 at noon."), U("Thanks <b>&</b>")], "tools": TOOLS},
    "steps": {"messages": [U("q"), A("", reasoning_content="first\nthen", tool_calls=CALL), T("r1"), A("", thinking="again", tool_calls=CALL), T("r2")], "tools": TOOLS},
    "reasoning": {"messages": [U("q"), A("<think>\nhm\n\n</think>\n\nanswer"), U("again"), A("sure", reasoning="because\n")]},
    "parts": {"messages": [S("s"), {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two ü"}]}]},
    "picture": {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}]},
    "no_tools": {"messages": [U("x")], "tools": []},
    "not_thinking": {"messages": [U("x")], "options": {"enable_thinking": False, "date_string": "1 May 2025"}},
    "thinking": {"messages": [U("x")], "options": {"enable_thinking": True, "tools_in_user_message": False}, "tools": TOOLS},
    "strange_role": {"messages": [U("x"), {"role": "critic", "content": "no"}]},
    "number": {"messages": [U("x"), A("y"), {"role": "user", "content": 5}]},
    "two_users": {"messages": [U("x"), U("y")]},
    "arguments_as_text": {"messages": [U("x"), A("", tool_calls=[{"id": "123456789", "function": {"name": "f", "arguments": "{\"a\": 1}"}}])]},
}


def main():
    core = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    cases = []
    for template, text in TEMPLATES.items():
        for name, conversation in CONVERSATIONS.items():
            for prompt in (False, True):
                case = {"template": template, "conversation": name, "prompt": prompt}
                try:
                    case["expected"] = tokenizer.apply_chat_template(
                        conversation["messages"], tools=conversation.get("tools"), chat_template=text, tokenize=False,
                        add_generation_prompt=prompt, **conversation.get("options", {}))
                except Exception as error:  # what the template raises, or Jinja
                    case["refused"] = str(error)
                cases.append(case)
    golden = {"templates": TEMPLATES, "conversations": CONVERSATIONS, "special_tokens": tokenizer.special_tokens_map, "cases": cases}
    path = pathlib.Path(__file__).resolve().parent / "chat_goldens.json"
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n")
    refused = sum("refused" in case for case in cases)
    print(f"{len(cases)} cases, {refused} refused, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
