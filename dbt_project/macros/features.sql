{#- The windows of the counting features, in hours. -#}
{% macro feature_windows() -%}
  {{ return([1, 24, 168, 720]) }}
{%- endmacro %}


{#- 1h, 24h, 7d, 30d -#}
{% macro window_name(hours) -%}
  {{ return(hours ~ 'h' if hours <= 24 else (hours // 24) ~ 'd') }}
{%- endmacro %}


{#-
  The hours of the window in which a key of `relation` was active or one of its `windows` lets an
  hour go: only then do its counts change, so the newest stored row of a key always holds.
-#}
{% macro marks(relation, key, windows) -%}
select distinct
        {{ key }},
        hour + ends.after_hours as hour

    from {{ relation }}
    cross join (values (0){% for hours in windows %}, ({{ hours }}){% endfor %}) as ends (after_hours)
    where {{ in_window('hour + ends.after_hours') }}
{%- endmacro %}


{#- The sums of `column` over each of `windows`, the row's own hour included. -#}
{% macro rolling_sums(column, windows) -%}
  {%- for hours in windows -%}
  cast(sum({{ column }}) over last_{{ window_name(hours) }} as bigint)
    as {{ column }}_{{ window_name(hours) }}{{ ',\n        ' if not loop.last }}
  {%- endfor %}
{%- endmacro %}


{#- The named windows that the rolling macros refer to. -#}
{% macro rolling_windows(keys, windows) -%}
  window
  {%- for hours in windows %}
  last_{{ window_name(hours) }} as (
    partition by {{ keys }} order by hour
    range between {{ hours - 1 }} preceding and current row
  ){{ ',' if not loop.last }}
  {%- endfor %}
{%- endmacro %}


{#-
  Exponential decay by rolling sums that are exact, so that an hour alone and the same hour of a
  bulk run give the same bytes. Time is cut into blocks of whole half-lives, no shorter than 30 days.
  An amount is weighed up to the start of its block (`decay_units`, whole numbers); the last 30 days
  touch two blocks at most, an even and an odd one, which are summed apart (`decay_sums`) and then
  weighed down to the row's hour (`decayed`).
-#}
{% macro decay_block(half_life) -%}
  {{ return((720 // half_life + (1 if 720 % half_life else 0)) * half_life) }}
{%- endmacro %}


{#- An amount in billionths, times two for each half-life since the start of its block. -#}
{% macro decay_units(amount, half_life) -%}
  {%- set age = 'hour % ' ~ decay_block(half_life) -%}
  cast({{ rounded(amount ~ ' * pow(2e0, (hour % ' ~ half_life ~ ') / ' ~ half_life ~ 'e0) * 1e9') }} as decimal(20, 0))
  * cast(pow(2e0, {{ whole_part('(' ~ age ~ ')', half_life) }}) as decimal(12, 0))
{%- endmacro %}


{#- `units` of the last 30 days in even and in odd blocks. -#}
{% macro decay_sums(units, half_life) -%}
  {%- for parity in [0, 1] -%}
  sum(case when {{ whole_part('hour', decay_block(half_life)) }} % 2 = {{ parity }} then {{ units }} else 0 end)
    over last_30d as {{ units }}_{{ parity }}{{ ',\n        ' if not loop.last }}
  {%- endfor %}
{%- endmacro %}


{#- What is left of an amount at the row's hour, in whole millionths or other `parts` of one. -#}
{% macro decayed(units, half_life, parts=1000000) -%}
  {%- set block = decay_block(half_life) -%}
  {%- set even = whole_part('hour', block) ~ ' % 2 = 0' -%}
  {%- set age = '(hour % ' ~ block ~ ')' -%}
  {{ rounded(
    '(cast(case when ' ~ even ~ ' then ' ~ units ~ '_0 else ' ~ units ~ '_1 end as double)'
    ~ ' * pow(2e0, -' ~ age ~ ' / ' ~ half_life ~ 'e0)'
    ~ ' + cast(case when ' ~ even ~ ' then ' ~ units ~ '_1 else ' ~ units ~ '_0 end as double)'
    ~ ' * pow(2e0, -(' ~ age ~ ' + ' ~ block ~ ') / ' ~ half_life ~ 'e0)) / ' ~ (1000000000 // parts) ~ 'e0'
  ) }}
{%- endmacro %}


{#- The nearest whole number; halves go up. `round` differs between dialects. -#}
{% macro rounded(number) -%}
  cast(floor({{ number }} + 0.5e0) as bigint)
{%- endmacro %}


{#- A number with six decimals, as double. -#}
{% macro six_decimals(number) -%}
  ({{ rounded('(' ~ number ~ ') * 1e6') }} / 1e6)
{%- endmacro %}


{#- The end of an hour as a time. -#}
{% macro end_of(hour) -%}
  {{ time_of_us('(' ~ hour ~ ' + 1) * 3600000000') }}
{%- endmacro %}


{#- The hour since 1970 that a time falls in. -#}
{% macro hour_of(time) -%}
  {{ whole_part(epoch_us(time), 3600000000) }}
{%- endmacro %}


{#-
  A ratio of counts that few events barely move: drawn to the site's own ratio as by twenty events.
  A later step may be reached without the step before it: no ratio is above 1.
-#}
{% macro smoothed_rate(reached, of, site_reached, site_of) -%}
  least(1e0, ({{ reached }} + 20 * least(1e0, coalesce({{ site_reached }} / nullif({{ site_of }}, 0), 0e0))) / ({{ of }} + 20))
{%- endmacro %}
