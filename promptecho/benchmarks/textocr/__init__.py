"""Text rendering: does an image show the text that its prompt asks for, character by character?"""
