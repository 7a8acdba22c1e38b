"""Evaluation measures as plain functions of features and labels."""
