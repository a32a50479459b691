"""The same student for the TFLite world: conversion, proof, and sources for tflite-micro."""
