"""HTTP as pveproxy speaks it: status lines, connection limits and failures are exact."""
