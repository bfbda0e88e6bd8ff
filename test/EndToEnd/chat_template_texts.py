# Part of kvrm, under the Apache License v2.0 with LLVM Exceptions.
# See LICENSE for licence information.
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Templates for chat_templates.py: in the manner of well-known models, single
constructs, and random ones."""

MODELS = {
    "ChatML": """\
{% for m in messages %}{% if loop.first and m['role'] != 'system' %}\
{{ '<|im_start|>system\\nYou are of help.<|im_end|>\\n' }}{% endif %}\
{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "Llama 2": """\
{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}\
{% set system = messages[0]['content'] %}{% else %}{% set rest = messages %}\
{% set system = false %}{% endif %}{% for m in rest %}\
{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles go user, assistant, user, assistant') }}{% endif %}\
{% if loop.index0 == 0 and system != false %}\
{% set said = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' + m['content'] %}\
{% else %}{% set said = m['content'] %}{% endif %}\
{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + said.strip() + ' [/INST]' }}\
{% elif m['role'] == 'assistant' %}{{ ' ' + said.strip() + ' ' + eos_token }}\
{% endif %}{% endfor %}""",
    "Llama 3": """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 Jan 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{#- The system message comes out of the list. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "Mistral": """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with " ~ user_messages|length) }}
    {%- endif %}
{%- endfor %}
""",
    "Gemma": """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles alternate user/assistant") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
""",
    "Phi-3": """\
{% for message in messages %}
{% if message['role'] == 'system' and message['content'] %}
{{'<|system|>
' + message['content'] + '<|end|>
'}}
{% elif message['role'] == 'user' %}
{{'<|user|>
' + message['content'] + '<|end|>
'}}
{% elif message['role'] == 'assistant' %}
{{'<|assistant|>
' + message['content'] + '<|end|>
'}}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>
' }}{% else %}{{ eos_token }}
{% endif %}
""",
    "Qwen3": """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "SmolLM3": """\
{# ───── defaults ───── #}
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{# ───── mode ───── #}
{%- if enable_thinking -%}
  {%- set reasoning_mode = "/think" -%}
{%- else -%}
  {%- set reasoning_mode = "/no_think" -%}
{%- endif -%}
{{- "<|im_start|>system\\n" -}}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- endif -%}
  {%- set custom = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "## Metadata\\n\\n" -}}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "Today Date: " ~ today ~ "\\n" -}}
{{- "Reasoning Mode: " + reasoning_mode + "\\n\\n" -}}
{%- if custom -%}
  {{- "## Custom Instructions\\n\\n" -}}{{- custom + "\\n\\n" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{# ───── the rest ───── #}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\\n"  + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
    {{ "<|im_start|>" + "user\\n"  + content + "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|im_start|>assistant\\n" }}
    {%- else -%}
        {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n"  }}
    {%- endif -%}
{%- endif -%}
""",
    "DeepSeek": """\
{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}\
{% set ns = namespace(is_first=false, is_tool=false, system_prompt='', is_first_sp=true) %}\
{%- for message in messages %}{%- if message['role'] == 'system' %}\
{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}\
{% set ns.is_first_sp = false %}{%- else %}\
{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}\
{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}\
{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}\
{{'<｜User｜>' + message['content']}}{%- endif %}\
{%- if message['role'] == 'assistant' and message['content'] is not none %}\
{% set content = message['content'] %}{% if '</think>' in content %}\
{% set content = content.split('</think>')[-1] %}{% endif %}\
{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}\
{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}\
{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜>'}}{% endif %}""",
    "Zephyr": """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "Command-R": """\
{{ bos_token }}{%- macro turn(role, text='') -%}
<|START_OF_TURN_TOKEN|><|{{ role | upper }}_TOKEN|>{{ text.strip() }}<|END_OF_TURN_TOKEN|>
{%- endmacro -%}
{%- set marks = {'user': 'user', "assistant": 'chatbot', 'system': 'system'} -%}
{%- if messages[0]['role'] != 'system' -%}{{ turn(text='## Preamble', role='system') }}{%- endif -%}
{%- for message in messages -%}
{%- if message.role not in marks -%}{{ raise_exception('Unknown role ' ~ message.role) }}{%- endif -%}
{{ turn(marks[message.role], message.content) }}
{%- endfor -%}
{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' if add_generation_prompt }}""",
    "Granite": """\
{%- if messages|length > 0 and messages[0]['role'] == 'system' -%}
{%- set loop_messages = messages -%}
{%- else -%}
{%- set loop_messages = [{'role': 'system', 'content': "Today's Date: " + strftime_now('%B %d, %Y') + '.'}] + messages -%}
{%- endif -%}
{%- for message in loop_messages %}
{%- for key, value in message.items() if key != 'role' %}
{{- '<|start_of_role|>' + message.get('role', 'user') + '<|end_of_role|>' ~ value ~ '<|end_of_text|>\\n' }}
{%- endfor %}
{%- if message.role == 'tool' %}{% continue %}{% endif %}
{%- if loop.last and add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}
{%- endfor %}""",
}

# Each of some constructs, mostly where white space or Python's ways matter.
CONSTRUCTS = [
    "a\n{% if true %}\n  b\n{% endif %}\n  c\n\n",
    "a  \n  {%- if true %}  b  {%- endif -%}  \n  c",
    "  {% if true +%}\n b\n  {%+ if false %}x{% endif %}\n",
    "x {# one\n two #}\n  {#- three -#}  y {#+ four +#}\n z",
    "{% raw %}\n {{ x }} {% y %}\n{% endraw %}\n  {%- raw -%}  a  {%- endraw -%}  b",
    "\r\n{{ 'a\r\nb' }}\r\n{% set x = 1 %}\r\nc\r",
    "{{- ' x ' -}}  \n y  {{ 1 }}\n",
    "{{ 'a' 'b' \"c\" }}{{ '\\x41\\u00e9\\101\\t\\q\\\\' }}{{ \"it's\" }}",
    "{{ 1 + 2 * 3 ** 2 // 4 % 5 - -1 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** -1 }}",
    "{{ 1.0 }} {{ 1e16 }} {{ 123456789.125 }} {{ 0.00001 }} {{ 1e-4 }} {{ 3.0 // 2 }} {{ 1e22 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 2 > 5 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' == 1 }} {{ none == false }}",
    "{{ 'a' < 'b' }} {{ not 1 == 2 }} {{ 1 in [1, 2] }} {{ 'x' not in 'abc' }} {{ 'k' in {'k': 1} }}",
    "{{ (1, 2) == [1, 2] }} {{ [1] + [2] == [1, 2] }} {{ [0] * 3 | length }} {{ 'ab' * 2 }}",
    "{{ x }}|{{ x is defined }}|{{ x | default('d') }}|{{ '' | default('e', true) }}|{{ none | d(1) }}",
    "{{ x ~ none ~ true ~ 1 ~ 2.5 }}|{{ none }}|{{ True }}",
    "{{ x.y }}", "{{ x + 1 }}", "{{ x() }}", "{{ x[0] }}", "{{ 'a' + 1 }}", "{{ 1 / 0 }}",
    "{{ none.a }}|{{ 'abc'.d }}|{{ messages.a }}|{{ messages[99] }}|{{ {}['a'] }}",
    "{{ x == y }} {{ x in [1] }} {{ x | length }} {% for a in x %}z{% else %}none{% endfor %}",
    "{{ 'äbc'[0] }}{{ 'äbc'[-1] }}{{ 'äbc'[1:] }}{{ 'äbcd'[::-2] }}{{ 'abc'[5] }}{{ 'abc'[-9:2] }}",
    "{{ [1,2,3,4][1:3] | tojson }}{{ [1,2,3][::-1] | tojson }}{{ [1,2,3][-2:] | tojson }}{{ [1,2][3:] | tojson }}",
    "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcab'.rstrip('ab') }}|{{ '  a'.lstrip() }}",
    "{{ 'a,b,,c'.split(',') | tojson }}{{ ' a  b '.split() | tojson }}{{ 'a b c'.split(' ', 1) | tojson }}",
    "{{ 'a,b,c'.rsplit(',', 1) | tojson }}{{ 'a b c d'.split(None, 2) | tojson }}{{ ''.split(',') | tojson }}",
    "{{ ''.split() | tojson }}{{ 'a\\nb\\r\\n\\nc'.splitlines() | tojson }}{{ 'a'.split('') }}",
    "{{ 'aXbX'.replace('X', '--') }}{{ 'aaa'.replace('a', 'b', 2) }}{{ 'abc'.replace('', '.') }}{{ 'ab'|replace('b','c') }}",
    "{{ 'hello wORLD-x'.title() }}|{{ 'hello wORLD-x (y)' | title }}|{{ 'aB'.upper() }}|{{ 'AB c' | capitalize }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'banana'.count('an') }}{{ 'äb'.find('b') }}",
    "{{ ', '.join(['a', 'b']) }}{{ [1, none, 'x'] | join('-') }}{{ messages | map(attribute='role') | join(',') }}",
    "{{ messages | map(attribute='content') | map('trim') | join('|') }}",
    "{{ messages | selectattr('role', 'in', ['user', 'tool']) | list | length }}",
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}",
    "{{ messages | selectattr('role', '!=', 'user') | list | length }}{{ [1, 2, 3] | select('<=', 2) | list | tojson }}",
    "{{ [1, 0, 2] | select | list | tojson }}{{ [1, 2, 3] | select('odd') | list | tojson }}{{ [1, 2] | reject('gt', 1) | first }}",
    "{% if messages | selectattr('role', 'equalto', 'nobody') %}always{% endif %}",
    "{{ none | selectattr('role') | list | length }}{{ 0 | reject | list | tojson }}{{ false | map('upper') | list | tojson }}",
    "{% set it = [1, 2] | map('string') %}{{ it | first }}{{ it | list | tojson }}{{ it | list | tojson }}",
    "{{ [3, 1] | first }}{{ 'abc' | last }}{{ [] | first }}{{ 'abc' | reverse }}{{ [1, 2] | reverse | list | tojson }}",
    "{{ {'b': 1, 'a': [true, none, 'x\\n\"é']} | tojson }}{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}",
    "{{ {'a': [1, {'b': []}], 'c': {}} | tojson(indent=2) }}{{ [1, [2]] | tojson(separators=(',', ':')) }}",
    "{{ messages | tojson }}", "{{ messages | tojson(indent=4) }}",
    "{{ '12' | int + 1 }}{{ 'x' | int }}{{ ' 7 ' | int }}{{ 2.9 | int }}{{ '1.5' | float }}{{ -3 | abs }}{{ 'z' | int(5) }}",
    "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent(1, blank=true) }}|{{ 'a\\nb' | indent('>') }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.length }}{{ loop.first }}{{ loop.last }}{{ loop.depth }};{% endfor %}",
    "{% for m in messages %}{{ (loop.previtem or {}).role }}>{{ loop.nextitem.role if loop.nextitem is defined }};{% endfor %}",
    "{% for a in [1, 2, 3, 4] if a % 2 == 0 %}{{ a }}{{ loop.index }}{{ loop.last }}{% endfor %}",
    "{% for a in [1, 2, 3, 4] %}{% if a == 2 %}{% continue %}{% endif %}{% if a == 4 %}{% break %}{% endif %}{{ a }}{% else %}no{% endfor %}",
    "{% for a in [] %}x{% else %}no{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{% for k in {'a': 1} %}{{ k }}{% endfor %}{% for c in 'aé' %}{{ c }}.{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{{ range(5, 0, -2) | list | tojson }}",
    "{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }}{% endfor %}{% for a, b in [1] %}{% endfor %}",
    "{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{{ y }}{% set y = i %}{{ y }}{% endfor %}{{ y }}",
    "{% set ns = namespace(n=0, s='') %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}{{ ns.none }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t = 1, %}{{ t | length }}{% set c %}x{{ a }}{% set a = 9 %}{% endset %}{{ c }}{{ a }}",
    "{% if true %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% macro m(a, b=2, c='z') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=1, a=0) }}{{ m() }}",
    "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(m('x')) | length }}{{ m(1, 2) }}",
    "{% set g = 1 %}{% macro m() %}{{ g }}{{ h }}{% endmacro %}{% set g = 2 %}{% for h in [1] %}{{ m() }}{% endfor %}",
    "{% macro m(n) %}{{ n }}{% if n > 0 %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(4) }}",
    "{{ 'a' if true else 'b' }}{{ 'a' if false }}{{ 'a' if false else 'b' if false else 'c' }}{{ 1 if 1 if 0 else 0 else 2 }}",
    "{{ 1 or 0 }}{{ 0 or 'x' }}{{ 1 and 'y' }}{{ '' and 1 }}{{ not '' }}{{ not not 1 }}",
    "{{ 1 is odd }}{{ 2 is even }}{{ 4 is divisibleby 2 }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}{{ 'A' is upper }}{{ '' is lower }}",
    "{{ none is none }}{{ true is boolean }}{{ 1 is integer }}{{ 1.0 is float }}{{ true is number }}{{ 1 is not none }}{{ [] is sequence }}{{ x is sequence }}{{ 1 is true }}",
    "{{ 1 is eq 1 }}{{ 'a' is in ['a'] }}{{ 2 is ge(2) }}{{ 1 is lt 0 }}{{ x is not defined and true }}{{ 3 is ne 3 }}",
    "{{ -1 | abs }}{{ -2 ** 2 }}{{ (1, 2)[1] }}{{ [[1, 2]][0][1] }}{{ {'a': {'b': 1}}.a.b }}{{ [1, 2].0 }}",
    "{{ {'a': 1}.get('b') }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.keys() | list | tojson }}{{ {'a': 1}.values() | list | tojson }}{{ dict(a=1) | tojson }}",
    "{{ strftime_now('%Y-%m-%d %H') }}{{ raise_exception is defined }}{{ raise_exception('No ' ~ messages | length) }}",
    "{{ messages[0]['content'] | length }}{{ messages[0].content[:2] }}{{ messages[-1].content[-1:] }}",
    "{% generation %} a {% set z = 1 %}{% endgeneration %}{{ z }}",
    "{{ 'a' ~ 'b' * 2 + 'c' }}{{ 1 ~ 2 + 3 ~ 4 }}", "{{ [] }}"[:0] + "{{ {'a': [1]}['a'][0] }}",
    "{{ 'x' | string | safe }}{{ true | string }}{{ 1.5 | string }}{{ {'a': 1} | items | list | tojson }}",
    "{% for k, v in {'b': 1, 'C': 2, 'a': [3]} | dictsort %}{{ k }}{{ v | tojson }}{% endfor %}{{ {} | dictsort | length }}",
]  # fmt: skip

# What kvrm refuses, where Jinja may not.
REFUSED = [
    "{% include 'x' %}", "{% extends 'x' %}", "{% block a %}{% endblock %}", "{% call f() %}{% endcall %}",
    "{% for a in [] recursive %}{% endfor %}", "{{ x | sort }}", "{{ 1 is sameas 1 }}", "{{ [1] }}", "{{ {} }}",
    "{{ messages[0].pop('role') }}", "{{ messages.append(1) }}", "{{ 'a'.format(1) }}", "{{ '%s' % 1 }}", "{{ lipsum() }}",
    "{{ 99999999999 * 99999999999 }}", "{% for i in range(99999999) %}{% endfor %}", "{{ 'a' * 9999999999 }}",
    "{% for i in range(9999) %}{% for j in range(9999) %}{{ j }}{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ " + "(" * 500 + "1" + ")" * 500 + " }}",
    "{% set ns = namespace(a=[]) %}{% for i in range(99) %}{% set ns.a = [ns.a] %}{% endfor %}",
    "{% set ns = namespace(a='x') %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}",
    "{{", "{% if", "{% if x %}", "{{ x }", "{# x", "{% raw %}", "{{ 'a }}", "{% endif %}", "{{ ) }}", "{{ 1 + }}",
    "{% break %}", "{{ x | }}", "{{ x is }}", "{% set 1 = 2 %}", "{% for %}", "{{ [1, }}", "{{ {'a'} }}", "{{ f(a=1, 2) }}",
]  # fmt: skip


class RandomTemplate:
    """Expressions and statements of any shape. An operand is mostly of the kind that
    the operator takes."""

    FILTERS = {
        "text": [
            "trim", "upper", "lower", "string", "capitalize", "title", "reverse", "first",
            "replace('a', 'bb')", "indent(2)", "default('x')", "default(1, true)", "last", "tojson",
        ],
        "number": ["abs", "int", "float", "string", "default(1)", "int|string"],
        "list": [
            "length", "first", "last", "list|length", "join(',')", "tojson", "select|list|tojson",
            "map('string')|join", "reverse|list|tojson", "map(attribute='role')|join('-')",
            "selectattr('role', 'equalto', 'user')|list|length", "map('length')|list|tojson",
            "rejectattr('content')|list|length", "reject('string')|first", "map('first')|join",
        ],
        "dict": ["items|list|tojson", "length", "list|join", "tojson(indent=1)", "tojson", "first"],
    }  # fmt: skip
    TAILS = {
        "text": [
            ".strip()", ".split('a')|tojson", "[:2]", ".upper()", ".startswith('a')", "[0]", "[-1]",
            ".replace('a', '')", "[1:]", "[::-1]", ".rstrip('b ')", ".split()|length", "[-2:3]",
            ".endswith(('a', 'b'))", ".splitlines()|tojson", ".title()", ".x", ".lstrip()", ".find('a')",
        ],
        "number": [".x", "[0]"],
        "list": ["[0]", "[-1]", "[1:]|length", "[::-1]|tojson", "[i]", "[7]", "[:-1]|tojson", "[0].role"],
        "dict": [".items()|list|tojson", ".get('a')", "['a']", ".b", "[0]", ".keys()|list|tojson", ".c"],
    }  # fmt: skip
    ATOMS = {
        "text": ["s", "s", "bos_token", "messages[0].content", "m.role", "'a'", "' b '", "''", "'ab\\n'"],
        "number": ["0", "1", "2", "-3", "2.5", "n", "n", "true", "(messages|length)", "i", "loop.index"],
        "list": ["messages", "d.b", "[1, 'a']", "(n, s)", "[]", "range(3)", "[s]", "messages[1:]"],
        "dict": ["d", "messages[0]", "{'a': s}", "{'a': 1, 'b': n}", "{}"],
        "any": ["none", "undefined_name", "m", "i", "t", "d.x"],
    }  # fmt: skip
    OPERATORS = {
        "text": ["+", "~", "==", "<", "in", "not in", "or", "and", "!="],
        "number": ["+", "-", "*", "//", "%", "/", "<", ">=", "==", "and", "or"],
        "list": ["+", "==", "and", "or"],
        "dict": ["==", "and", "or", "!="],
    }
    TESTS = [
        "defined", "none", "string", "mapping", "iterable", "number", "sequence", "true",
        "boolean", "integer", "in [1, 's']", "eq 1", "undefined", "float",
    ]  # fmt: skip
    KINDS = ["text", "text", "number", "list", "dict"]

    def __init__(self, chance):
        self.chance = chance

    def pick(self, options):
        return self.chance.choice(options)

    def atom(self, kind):
        if self.chance.random() < 0.06:
            kind = self.pick(list(self.ATOMS))
        return self.pick(self.ATOMS[kind])

    def expression(self, depth, kind=None):
        kind = kind or self.pick(self.KINDS)
        if depth <= 0:
            return self.atom(kind)
        below = lambda: self.expression(depth - 1, kind)  # noqa: E731
        form = self.chance.randrange(8)
        if form < 2:
            return self.atom(kind)
        if form == 2:
            return f"{self.atom(kind)}|{self.pick(self.FILTERS[kind])}"
        if form == 3:
            no = self.pick(["", "not "])
            return f"({below()} is {no}{self.pick(self.TESTS)})"
        if form == 4:
            atom = self.atom(kind)
            # A slice of what is constant and has none is another thing to Jinja.
            is_plain = atom[-1].isdigit() or atom in ("{}", "none", "true")
            return ("n" if is_plain else atom) + self.pick(self.TAILS[kind])
        if form < 7:
            return f"({below()} {self.pick(self.OPERATORS[kind])} {below()})"
        if self.chance.random() < 0.5:
            return f"({below()} if {self.expression(1)} else {below()})"
        return f"(not {below()})"

    def space(self):
        return self.pick(["", "", " ", "\n", "  \n  ", "\n\n", "x"])

    def tag(self, inside, kind="%"):
        end = "}" if kind == "{" else kind
        left = self.pick(["", "", "-", "+"] if kind == "%" else ["", "", "-"])
        right = self.pick(["", "", "-", "+"] if kind == "%" else ["", "", "-"])
        return "{" + kind + left + " " + inside + " " + right + end + "}"

    def statement(self, depth):
        kind = self.chance.randrange(8 if depth > 0 else 4)
        body = lambda: self.body(depth - 1)  # noqa: E731
        if kind < 3:
            return self.tag(self.expression(3, self.pick(["text", "text", "number"])), "{")
        if kind == 3:
            return self.tag(f"set {self.pick(['i', 'm', 't'])} = {self.expression(2)}")
        if kind == 4:
            test = self.tag("if " + self.expression(2))
            return test + body() + self.tag("else") + body() + self.tag("endif")
        if kind < 7:
            over = self.pick(["messages", "range(3)", "d.b", self.expression(1, "list")])
            jump = self.tag("if loop.index > 2") + self.tag("break") + self.tag("endif")
            loop = self.tag(f"for {self.pick(['i', 'm'])} in {over}")
            return loop + body() + self.pick(["", jump]) + self.tag("endfor")
        return self.tag("set m") + body() + self.tag("endset")

    def body(self, depth):
        parts = [self.space()]
        for _ in range(self.chance.randrange(1, 3)):
            parts += [self.statement(depth), self.space()]
        return "".join(parts)

    def text(self):
        return self.body(2)
