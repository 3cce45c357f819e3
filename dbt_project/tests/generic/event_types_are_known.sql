{#- An event type that the domain does not name would count with no weight. -#}
{% test event_types_are_known(model, partials, event_types) %}
  select partials.event_type, count(*) as events
  from {{ partials }} as partials
  anti join {{ event_types }} as event_types on partials.event_type = event_types.event_type
  where {{ days_in_reach(0) }} and {{ in_window('hour') }}
  group by partials.event_type
{% endtest %}
