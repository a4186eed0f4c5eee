"""The paper's tables, figures and claims, each beside what the runs of a results folder say of it."""
