"""The hook of training loops."""

from jaxflow.training._monitor import FlowMonitor
from jaxflow.training._summary import FlowSummary, flow_summary

__all__ = ["FlowMonitor", "FlowSummary", "flow_summary"]
